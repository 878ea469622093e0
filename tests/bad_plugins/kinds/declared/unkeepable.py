"""Has rules that JSON cannot hold, and a validator that raises what no validator raises.

Outcome: it is left out before anything of it reaches the log.
State: load_error
Reason: unkeepable cannot be checked: SystemExit: 3
"""

from pydantic import model_validator

from scrm.api import Contribution, Rules, hookimpl


class UnkeepableRules(Rules):
    bonus: int = 1

    @model_validator(mode="after")
    def leave(self):
        raise SystemExit(3)


@hookimpl
def contribute():
    return Contribution(name="unkeepable", version="1.0", rules=UnkeepableRules)
