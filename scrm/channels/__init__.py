"""The core's channels."""
