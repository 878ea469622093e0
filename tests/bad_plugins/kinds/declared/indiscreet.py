"""Has a secret among its rules, which are kept in the log, and a setting that belongs to the host.

Outcome: it is left out, and the way out is said.
State: load_error
Reason: rules.token of indiscreet is a secret, and rules are kept in the log; move it to wiring; setting enabled of indiscreet is the host's; choose another name
"""

from pydantic import SecretStr

from scrm.api import Contribution, Rules, hookimpl


class IndiscreetRules(Rules):
    token: SecretStr = SecretStr("")
    enabled: bool = True


@hookimpl
def contribute():
    return Contribution(name="indiscreet", version="1.0", rules=IndiscreetRules)
