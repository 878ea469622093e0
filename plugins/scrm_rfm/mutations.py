"""Runs on demand, and people who change their segment, in GraphQL."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import sqlalchemy as sa
import strawberry

from scrm.api import (
    Decision,
    Info,
    Mutation,
    ScrmError,
    Subscription,
    Tx,
    UserErrorType,
    errors_field,
    events,
    extend,
    follow,
    instant_text,
    mutation,
    new_id,
    ref,
    subscription,
)

from . import service
from .events import CHANGED, REQUESTED
from .graphql import READ, WRITE, RfmMode, RfmRun, RfmScore

compute_rfm = Decision("computeRfm", REQUESTED, service.ask_for_run)
DECISIONS = (compute_rfm,)

LOOK_EVERY = 0.05
LONGEST_WAIT = 20


@strawberry.input(description="A run to make: everybody as of an instant.")
class ComputeRfmInput:
    as_of: dt.datetime | None = strawberry.field(description="The instant; now unless said.", default=None)
    mode: RfmMode | None = strawberry.field(description="How customers are scored; as the rules say unless said.", default=None)
    window_days: int | None = strawberry.field(
        description="How many days up to the instant count; 0: all time; as the rules say unless said.", default=None
    )
    wait_seconds: int = strawberry.field(
        description="How long to wait for the run, 0 to 20; then it is answered as it is, pending perhaps.", default=5
    )
    idempotency_key: str | None = strawberry.field(
        description="The same key again asks for the same run as of the same instant.", default=None
    )


@strawberry.type(description="The run that was asked for, or why not.")
class RfmRunPayload:
    run: RfmRun | None = strawberry.field(description="The run.", default=None)
    errors: list[UserErrorType] = errors_field()


@extend(Mutation)
class RfmMutation:
    """Runs to make."""

    @mutation(
        "Score everybody as of an instant. With the mode and window of the rules, and as of a later instant than any run, it is "
        "the one by which everybody stands from then on; any other run is for looking only.",
        scope=WRITE,
    )
    async def compute_rfm(self, info: Info, input: ComputeRfmInput) -> RfmRunPayload | None:
        if not 0 <= input.wait_seconds <= LONGEST_WAIT:
            message = f"waitSeconds is {input.wait_seconds}; give 0 to {LONGEST_WAIT}"
            raise ScrmError("INVALID_WAIT", message, path=("waitSeconds",), params={"limit": LONGEST_WAIT})
        said = {
            "asOf": instant_text(input.as_of) if input.as_of is not None else None,
            "mode": input.mode.value.lower() if input.mode is not None else None,
            "windowDays": input.window_days,
        }
        decided = await info.context.decide(compute_rfm, said, key=input.idempotency_key or new_id().hex)
        made = await info.context.read(service.asked_for, decided.event_id)
        for _ in range(int(input.wait_seconds / LOOK_EVERY)):
            if await info.context.read(service.is_made, made):
                break
            await asyncio.sleep(LOOK_EVERY)
        return RfmRunPayload(run=ref(RfmRun, made))


@extend(Subscription)
class RfmSubscription:
    """People, as they change their segment."""

    @subscription("How people stand, whenever they are in another segment than before.", scope=READ, self_service=True)
    async def rfm_segment_changed(
        self,
        info: Info,
        user_id: Annotated[strawberry.ID | None, strawberry.argument(description="Only this person.")] = None,
    ) -> AsyncIterator[RfmScore | None]:
        wanted = events.c.type == CHANGED
        if user_id is not None:
            wanted &= events.c.user_id == await info.context.user(user_id)
        async for event_id in follow(info.context, wanted, plugin="rfm"):
            yield ref(RfmScore, await info.context.read(_person_of, event_id))


def _person_of(tx: Tx, event_id: UUID) -> UUID:
    found: UUID = tx.scalar(sa.select(events.c.user_id).where(events.c.id == event_id))
    return found
