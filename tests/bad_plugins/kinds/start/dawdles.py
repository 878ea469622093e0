"""Never returns from contribute(), busily.

Outcome: it is waited for plugin_start_seconds, then interrupted and left out.
State: load_error
Reason: dawdles cannot be imported: it has not returned after 2 s; mend it, …
"""

from scrm.api import hookimpl


@hookimpl
def contribute():
    while True:
        pass
