"""Has a name with which a core table begins.

Outcome: it is left out: its prefix would be the core's.
State: load_error
Reason: core's table audit_chain has the prefix of audit; rename the plugin
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def contribute():
    return Contribution(name="audit", version="1.0")
