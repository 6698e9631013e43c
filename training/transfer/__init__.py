"""What tasks gain and lose by being trained together: each alone against all jointly."""
