"""The core's indicators."""
