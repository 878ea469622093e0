"""Starts a thread while it is imported, which never ends and is no daemon.

Outcome: it works with a warning that names the thread; commands end all the same.
State: active
Check: warning: threads started the thread chatter while it was loaded; start it in the hook lifespan
"""

import threading

from scrm.api import Contribution, hookimpl

threading.Thread(target=threading.Event().wait, name="chatter", daemon=False).start()


@hookimpl
def contribute():
    return Contribution(name="threads", version="1.0")
