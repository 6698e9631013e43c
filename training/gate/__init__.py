"""Whether a new version may replace the current one."""
