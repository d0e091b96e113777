"""Recipes: one short file each; `common` names every option."""
