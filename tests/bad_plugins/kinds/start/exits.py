"""Tries to end the process while it is imported.

Outcome: that is its own failure; nothing ends.
State: load_error
Reason: exits cannot be imported: SystemExit: 0
"""

raise SystemExit(0)
