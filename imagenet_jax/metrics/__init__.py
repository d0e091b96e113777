"""What a run is measured by, and where its numbers and pictures go. Import from the file that holds it."""
