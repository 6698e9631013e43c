"""Runs passes and steps on the device, and handles its failures."""
