"""Raises as if somebody had pressed Ctrl-C.

Outcome: that is its own failure; a real Ctrl-C still ends the command.
State: load_error
Reason: interrupts cannot be imported: KeyboardInterrupt: no message
"""

raise KeyboardInterrupt
