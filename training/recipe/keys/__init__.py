"""What stands under the keys of a recipe, and how it is read. Pure."""
