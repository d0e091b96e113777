"""Trained models behind HTTP: a page to try them on, and an endpoint that answers images in batches."""
