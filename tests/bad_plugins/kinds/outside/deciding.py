"""Has decisions that raise, try to end the server, answer nonsense, and write.

Outcome: each is refused with PLUGIN_FIELD_FAILED and nothing has happened.
State: active
Check: warning: event type deciding.done, which deciding uses, is registered by nobody; check its spelling
"""

import sqlalchemy as sa
import strawberry

from scrm.api import (
    Contribution,
    Decision,
    Fact,
    Handler,
    Info,
    Mutation,
    UserErrorType,
    errors_field,
    extend,
    hookimpl,
    mutation,
)


def raises(tx, input, rules, at):
    raise RuntimeError("no luck")


def exits(tx, input, rules, at):
    raise SystemExit(0)


def babbles(tx, input, rules, at):
    return "done"


def writes(tx, input, rules, at):
    tx.execute(sa.text("with gone as (delete from users returning 1) select 1"))
    return Fact(None, {})


def handle(tx, events, rules):
    pass


RAISES, EXITS, BABBLES, WRITES = (
    Decision(f"decidingTo{name}", "deciding.done", decide)
    for name, decide in (("Raise", raises), ("Exit", exits), ("Babble", babbles), ("Write", writes))
)


@strawberry.input(description="Which.")
class DecideInput:
    which: int = strawberry.field(description="Its number.")


@strawberry.type(description="Nothing.")
class DecidePayload:
    errors: list[UserErrorType] = errors_field()


@extend(Mutation)
class Asked:
    @mutation("Decide.", scope="users:write")
    async def decide_badly(self, info: Info, input: DecideInput) -> DecidePayload | None:
        decision = (RAISES, EXITS, BABBLES, WRITES)[input.which]
        await info.context.decide(decision, {}, key=f"key {input.which}")
        return DecidePayload()


@hookimpl
def contribute():
    return Contribution(
        name="deciding",
        version="1.0",
        mutation=[Asked],
        decisions=[RAISES, EXITS, BABBLES, WRITES],
        handlers=[Handler(("deciding.done",), handle)],
    )
