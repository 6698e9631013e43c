"""Task kinds: targets, losses, scores, calibration."""
