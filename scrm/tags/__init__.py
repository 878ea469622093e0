"""The core's tags."""
