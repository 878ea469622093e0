"""Sleeps while it is imported.

Outcome: it is waited for plugin_start_seconds, then left out and left asleep.
State: load_error
Reason: sleeps cannot be imported: it has not returned after 2 s; mend it, give it longer with plugin_start_seconds, or take its enabled = true out
"""

import time

time.sleep(3600)
