"""Imports a package that is not installed.

Outcome: it is left out, and the message says what to install.
State: load_error
Reason: lacks cannot be imported: ModuleNotFoundError: No module named 'nowhere_to_be_found'; install what brings nowhere_to_be_found beside scrm
"""

import nowhere_to_be_found  # noqa: F401
