"""Run folders: what a training leaves, and what it depends on."""
