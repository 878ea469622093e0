"""Backups: one state of the database in a directory of its own, and the way back."""
