"""Rows of a file on their way into the log and among the users."""
