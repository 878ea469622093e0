"""Ends the process from C while it is imported.

Outcome: nothing in a process survives that, neither the server nor a check; --safe-mode starts without it.
State: discovered
Check: the process ends
"""

import os

os._exit(7)
