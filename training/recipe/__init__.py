"""What people write: recipes and jobs."""
