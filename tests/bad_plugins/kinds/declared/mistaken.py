"""Is set up with a setting that it does not have.

Outcome: it is left out, and the nearest name is said.
State: load_error
Reason: setting plugins.mistaken.bonsu is unknown; did you mean bonus?
Section: bonsu
"""

from scrm.api import Contribution, Rules, hookimpl


class MistakenRules(Rules):
    bonus: int = 1


@hookimpl
def contribute():
    return Contribution(name="mistaken", version="1.0", rules=MistakenRules)
