"""Has commands, and the name of a command of the host's.

Outcome: the command line leaves it out: they would hide the host's.
State: load_error
Reason: commands of db would hide scrm db; rename the plugin
Where: command line
"""

from scrm.api import Command, Contribution, hookimpl


def upgrade():
    """Upgrade something else."""


@hookimpl
def contribute():
    return Contribution(name="db", version="1.0", commands=[Command("upgrade", upgrade)])
