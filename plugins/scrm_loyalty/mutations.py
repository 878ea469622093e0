"""What can be done with points, in GraphQL."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import strawberry

from scrm.api import (
    BigInt,
    Decided,
    Decision,
    Info,
    Mutation,
    UserErrorType,
    errors_field,
    extend,
    global_id,
    instant_text,
    line_id,
    mutation,
    node_id,
    ref,
)

from . import correcting, service, spending
from .facts import hold_of
from .graphql import WRITE, PointsAccount, PointsEntry, PointsHold
from .ledger import ADJUSTED, HELD, REDEEMED, RELEASED, TRANSFERRED, UNDONE

redeem_points = Decision("redeemPoints", REDEEMED, spending.spend)
hold_points = Decision("holdPoints", HELD, spending.hold)
capture_hold = Decision("captureHold", REDEEMED, spending.capture)
release_hold = Decision("releaseHold", RELEASED, spending.release)
reverse_entry = Decision("reversePointsEntry", UNDONE, correcting.undo)
adjust_points = Decision("adjustPoints", ADJUSTED, correcting.adjust)
transfer_points = Decision("transferPoints", TRANSFERRED, correcting.transfer)
DECISIONS = [redeem_points, hold_points, capture_hold, release_hold, reverse_entry, adjust_points, transfer_points]

KEY = "The same key again changes nothing and answers the same."
REASON = "Why, in words; forgotten when the person is erased."
REFERENCE = "What it refers to, such as an order; kept for ever, so nothing personal."


@strawberry.input(description="Points to spend.")
class RedeemPointsInput:
    user_id: strawberry.ID = strawberry.field(description="Whose.")
    points: BigInt = strawberry.field(description="How many.")
    reason: str | None = strawberry.field(description=REASON, default=None)
    reference: str | None = strawberry.field(description=REFERENCE, default=None)
    channel: str | None = strawberry.field(description="Key of the channel where it happens.", default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="Points to keep for something.")
class HoldPointsInput:
    user_id: strawberry.ID = strawberry.field(description="Whose.")
    points: BigInt = strawberry.field(description="How many.")
    reason: str | None = strawberry.field(description=REASON, default=None)
    reference: str | None = strawberry.field(description=REFERENCE, default=None)
    channel: str | None = strawberry.field(description="Key of the channel where it happens.", default=None)
    expires_in_seconds: int | None = strawberry.field(
        description="For how long, 1 to 31536000; the setting hold_seconds unless given.", default=None
    )
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="A hold to spend from.")
class CaptureHoldInput:
    hold_id: strawberry.ID = strawberry.field(description="Which.")
    points: BigInt | None = strawberry.field(description="How many; all unless given. The rest is free again.", default=None)
    reference: str | None = strawberry.field(description="The hold's unless given.", default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="A hold to give up.")
class ReleaseHoldInput:
    hold_id: strawberry.ID = strawberry.field(description="Which.")
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="A line of the ledger to take back.")
class ReversePointsEntryInput:
    entry_id: strawberry.ID = strawberry.field(description="Which: a redemption, or an adjustment.")
    reason: str | None = strawberry.field(description=REASON, default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="A correction by hand.")
class AdjustPointsInput:
    user_id: strawberry.ID = strawberry.field(description="Whose.")
    points: BigInt = strawberry.field(description="How many more, or below 0 how many fewer.")
    reason: str = strawberry.field(description=REASON)
    reference: str | None = strawberry.field(description=REFERENCE, default=None)
    expires_at: dt.datetime | None = strawberry.field(
        description="From when on they cannot be spent; as the program says unless given.", default=None
    )
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="Points for somebody else.")
class TransferPointsInput:
    user_id: strawberry.ID = strawberry.field(description="Who gives.")
    to_user_id: strawberry.ID = strawberry.field(description="Who gets.")
    points: BigInt = strawberry.field(description="How many.")
    reason: str | None = strawberry.field(description=REASON, default=None)
    reference: str | None = strawberry.field(description=REFERENCE, default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.type(description="A line of the ledger and the account after it, or why not.")
class PointsPayload:
    entry: PointsEntry | None = strawberry.field(description="The line that was written, if one was.", default=None)
    account: PointsAccount | None = strawberry.field(description="The account as it is now.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="A hold and the account after it, or why not.")
class PointsHoldPayload:
    hold: PointsHold | None = strawberry.field(description="The hold as it is now.", default=None)
    account: PointsAccount | None = strawberry.field(description="The account as it is now.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="What was moved and both accounts after it, or why not.")
class PointsTransferPayload:
    entry: PointsEntry | None = strawberry.field(description="The line of who gives.", default=None)
    account: PointsAccount | None = strawberry.field(description="The account of who gives, as it is now.", default=None)
    to_account: PointsAccount | None = strawberry.field(description="The account of who gets, as it is now.", default=None)
    errors: list[UserErrorType] = errors_field()


async def _of_user(info: Info, input: RedeemPointsInput | HoldPointsInput) -> dict[str, Any]:
    """What a decision about a person's points is told."""
    user = await info.context.user(input.user_id)
    said = {"userId": user.hex, "points": input.points, "reason": input.reason, "reference": input.reference}
    if input.channel is None:
        return said
    return {**said, "channel": (await info.context.read(service.channel_of, input.channel)).hex}


def _spent(decided: Decided) -> PointsPayload:
    """What a redemption is answered; its line's id follows from its event."""
    return _line(decided, line_id(decided.event_id, "REDEEM"))


def _line(decided: Decided, entry: uuid.UUID | None) -> PointsPayload:
    return PointsPayload(
        entry=ref(PointsEntry, entry) if entry is not None else None, account=ref(PointsAccount, _user_of(decided))
    )


async def _corrected(info: Info, decided: Decided) -> PointsPayload:
    return _line(decided, await info.context.read(service.entry_of, decided.event_id))


def _user_of(decided: Decided) -> uuid.UUID:
    assert decided.user_id is not None
    return decided.user_id


@extend(Mutation)
class LoyaltyMutation:
    """Points to spend and to hold."""

    @mutation("Spend points, those that expire soonest first.", scope=WRITE)
    async def redeem_points(self, info: Info, input: RedeemPointsInput) -> PointsPayload | None:
        said = await _of_user(info, input)
        return _spent(await info.context.decide(redeem_points, said, key=input.idempotency_key))

    @mutation("Keep points for something, until it is captured, released, or too late.", scope=WRITE)
    async def hold_points(self, info: Info, input: HoldPointsInput) -> PointsHoldPayload | None:
        said = {**await _of_user(info, input), "seconds": input.expires_in_seconds}
        decided = await info.context.decide(hold_points, said, key=input.idempotency_key)
        return PointsHoldPayload(hold=ref(PointsHold, hold_of(decided.event_id)), account=ref(PointsAccount, _user_of(decided)))

    @mutation("Spend what a hold keeps, all or less; the rest is free again.", scope=WRITE)
    async def capture_hold(self, info: Info, input: CaptureHoldInput) -> PointsPayload | None:
        hold = node_id("PointsHold", input.hold_id, ("holdId",))
        said = {"hold": hold.hex, "points": input.points, "reference": input.reference}
        return _spent(await info.context.decide(capture_hold, said, key=input.idempotency_key))

    @mutation("Give up a hold: its points are free again.", scope=WRITE)
    async def release_hold(self, info: Info, input: ReleaseHoldInput) -> PointsPayload | None:
        said = {"hold": node_id("PointsHold", input.hold_id, ("holdId",)).hex}
        return _line(await info.context.decide(release_hold, said, key=input.idempotency_key), None)

    @mutation(
        "Undo a redemption or an adjustment: points go back to where they were, and expire when they would have.", scope=WRITE
    )
    async def reverse_points_entry(self, info: Info, input: ReversePointsEntryInput) -> PointsPayload | None:
        entry = node_id("PointsEntry", input.entry_id, ("entryId",))
        holder = await info.context.read(service.holder_of, entry)
        if holder is not None:
            await info.context.user(global_id("User", holder), "entryId")
        said = {"entry": entry.hex, "reason": input.reason}
        return await _corrected(info, await info.context.decide(reverse_entry, said, key=input.idempotency_key))

    @mutation("Credit points by hand, or (below 0) take some.", scope=WRITE)
    async def adjust_points(self, info: Info, input: AdjustPointsInput) -> PointsPayload | None:
        user = await info.context.user(input.user_id)
        until = instant_text(input.expires_at) if input.expires_at is not None else None
        said = {"userId": user.hex, "points": input.points, "reason": input.reason, "reference": input.reference}
        decided = await info.context.decide(adjust_points, {**said, "expiresAt": until}, key=input.idempotency_key)
        return await _corrected(info, decided)

    @mutation("Move points to somebody else; they last as long as before.", scope=WRITE)
    async def transfer_points(self, info: Info, input: TransferPointsInput) -> PointsTransferPayload | None:
        user = await info.context.user(input.user_id)
        to = await info.context.user(input.to_user_id, "toUserId")
        said = {"userId": user.hex, "toUserId": to.hex, "points": input.points}
        said |= {"reason": input.reason, "reference": input.reference}
        decided = await info.context.decide(transfer_points, said, key=input.idempotency_key)
        entry = ref(PointsEntry, line_id(decided.event_id, "TRANSFER_OUT", "points"))
        account, to_account = ref(PointsAccount, _user_of(decided)), ref(PointsAccount, to)
        return PointsTransferPayload(entry=entry, account=account, to_account=to_account)
