"""The core's users."""
