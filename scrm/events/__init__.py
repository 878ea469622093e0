"""The core's events."""
