"""What can be done with budgets, in GraphQL."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any

import strawberry

from scrm.api import (
    JSON,
    Decided,
    Decision,
    Info,
    MoneyInput,
    Mutation,
    ScrmError,
    UserErrorType,
    enum,
    errors_field,
    extend,
    line_id,
    mutation,
    new_id,
    node_id,
    ref,
)

from . import deciding, planning
from .events import CLOSED, COMMITTED, CREATED, EXPLAINED, REALLOCATED, REFUNDED, RELEASED, SPENT, TRANSFERRED, UPDATED
from .facts import budget_of, commitment_of
from .graphql import WRITE, Budget, BudgetCommitment, BudgetEntry, BudgetPolicy, BudgetRollover, VarianceCause
from .returns import UNIT

create_budget = Decision("createBudget", CREATED, planning.create)
update_budget = Decision("updateBudget", UPDATED, planning.update)
close_budget = Decision("closeBudget", CLOSED, planning.close)
explain_variance = Decision("explainVariance", EXPLAINED, planning.explain)
reallocate_budget = Decision("reallocateBudget", REALLOCATED, planning.reallocate_budget)
commit_budget = Decision("commitBudget", COMMITTED, deciding.commit)
release_commitment = Decision("releaseCommitment", RELEASED, deciding.release)
spend_budget = Decision("spendBudget", SPENT, deciding.spend)
refund_budget = Decision("refundBudget", REFUNDED, deciding.refund)
transfer_budget = Decision("transferBudget", TRANSFERRED, deciding.transfer)
DECISIONS = [
    create_budget,
    update_budget,
    close_budget,
    explain_variance,
    reallocate_budget,
    commit_budget,
    release_commitment,
    spend_budget,
    refund_budget,
    transfer_budget,
]

KEY = "The same key again changes nothing and answers the same."
MAYBE_KEY = "The same key again changes nothing and answers the same; without one each request counts."
REFERENCE = "What it refers to, such as an order to a supplier; kept for ever, so nothing personal."
NOT_SAID = "As it is unless said."
AMOUNT = "How much, in the budget's currency."


@enum(
    "Shares to begin with.",
    ACTIVITIES="content 20, community 30, analytics 15, technology 15, campaigns 20 %.",
    RESOURCES="platform 23.75, tools 13.75, people 33.75, marketing 28.75 %.",
)
class BudgetPreset(Enum):
    ACTIVITIES = "ACTIVITIES"
    RESOURCES = "RESOURCES"


@strawberry.input(description="A line of a budget to make.")
class BudgetLineInput:
    category: str = strawberry.field(description="What it is for: lower case, no other line's; the same from budget to budget.")
    share: float | None = strawberry.field(
        description="Percent of the total less the reserve; all lines say one, or all an amount.", default=None
    )
    amount: MoneyInput | None = strawberry.field(description="What it gets, instead of a share.", default=None)
    policy: BudgetPolicy = strawberry.field(
        description="What becomes of a request for more than it has.", default=BudgetPolicy.BLOCK
    )
    cap_per_day: MoneyInput | None = strawberry.field(description="At most so much a day.", default=None)
    cap_per_user: MoneyInput | None = strawberry.field(description="At most so much for one person.", default=None)
    expected_roi: float | None = strawberry.field(description="The return that is expected, to four decimals.", default=None)
    channels: list[str] = strawberry.field(description="Keys of the channels whose revenue is its.", default_factory=list)
    campaigns: list[str] = strawberry.field(description="Campaigns whose revenue is its.", default_factory=list)


@strawberry.input(description="A budget to make.")
class CreateBudgetInput:
    name: str = strawberry.field(description="Its name.")
    start: dt.date = strawberry.field(description="Its first day.")
    end: dt.date = strawberry.field(description="The day after its last.")
    total: MoneyInput = strawberry.field(description="All of it; its currency is the budget's.")
    reserve: MoneyInput | None = strawberry.field(
        description="What is kept back of it 弹性预算; nothing unless said.", default=None
    )
    preset: BudgetPreset | None = strawberry.field(description="Shares to begin with.", default=None)
    lines: list[BudgetLineInput] = strawberry.field(
        description="Its lines; with a preset, what more is to be said of its categories.", default_factory=list
    )
    previous_id: strawberry.ID | None = strawberry.field(description="The budget that it follows.", default=None)
    rollover: BudgetRollover = strawberry.field(
        description="What its lines take over from those of the budget before.", default=BudgetRollover.NONE
    )
    rollover_cap: MoneyInput | None = strawberry.field(description="At most so much for each line, with CAPPED.", default=None)
    idempotency_key: str | None = strawberry.field(description=MAYBE_KEY, default=None)


@strawberry.input(description="What is to be different of a line.")
class BudgetLinePatch:
    line_id: strawberry.ID = strawberry.field(description="Which.")
    allocated: MoneyInput | None = strawberry.field(
        description="What it has from now on; before the budget's first day its plan changes too.", default=None
    )
    policy: BudgetPolicy | None = strawberry.field(description=NOT_SAID, default=None)
    cap_per_day: strawberry.Maybe[MoneyInput | None] = strawberry.field(description="At most so much a day; null: no cap.")
    cap_per_user: strawberry.Maybe[MoneyInput | None] = strawberry.field(description="For one person; null: no cap.")
    expected_roi: strawberry.Maybe[float | None] = strawberry.field(description="The return that is expected; null: none.")
    channels: list[str] | None = strawberry.field(description=NOT_SAID, default=None)
    campaigns: list[str] | None = strawberry.field(description=NOT_SAID, default=None)


@strawberry.input(description="What is to be different of a budget.")
class UpdateBudgetInput:
    id: strawberry.ID = strawberry.field(description="Which.")
    name: str | None = strawberry.field(description=NOT_SAID, default=None)
    reserve: MoneyInput | None = strawberry.field(description="What the reserve has from now on.", default=None)
    lines: list[BudgetLinePatch] = strawberry.field(description="Lines to change.", default_factory=list)
    idempotency_key: str | None = strawberry.field(description=MAYBE_KEY, default=None)


@strawberry.input(description="A budget to close before its time.")
class CloseBudgetInput:
    id: strawberry.ID = strawberry.field(description="Which.")
    idempotency_key: str | None = strawberry.field(description=MAYBE_KEY, default=None)


@strawberry.input(description="Money to keep for something.")
class CommitBudgetInput:
    line_id: strawberry.ID = strawberry.field(description="Of which line.")
    amount: MoneyInput = strawberry.field(description=AMOUNT)
    user_id: strawberry.ID | None = strawberry.field(description="For whom, if for one person.", default=None)
    expires_in_seconds: int | None = strawberry.field(
        description="For how long; the setting commitment_seconds unless said, and no longer than until the budget closes.",
        default=None,
    )
    reference: str | None = strawberry.field(description=REFERENCE, default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="A commitment to give up.")
class ReleaseCommitmentInput:
    commitment_id: strawberry.ID = strawberry.field(description="Which.")
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="Money to spend, of a line or of a commitment.")
class SpendBudgetInput:
    line_id: strawberry.ID | None = strawberry.field(description="Of which line; or say commitmentId.", default=None)
    commitment_id: strawberry.ID | None = strawberry.field(description="Of which commitment.", default=None)
    amount: MoneyInput = strawberry.field(description=AMOUNT)
    final: bool = strawberry.field(description="Whether the rest of the commitment is free again.", default=False)
    user_id: strawberry.ID | None = strawberry.field(description="For whom, if for one; a commitment has its own.", default=None)
    reference: str | None = strawberry.field(description=REFERENCE, default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="Spent money that came back.")
class RefundBudgetInput:
    entry_id: strawberry.ID = strawberry.field(description="The spending.")
    amount: MoneyInput | None = strawberry.field(description="How much; all that is left of it unless said.", default=None)
    reference: str | None = strawberry.field(description=REFERENCE, default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="Money to move within a budget.")
class TransferBudgetInput:
    from_line_id: strawberry.ID | None = strawberry.field(description="From which line; null: from the reserve.", default=None)
    to_line_id: strawberry.ID | None = strawberry.field(description="To which line; null: to the reserve.", default=None)
    amount: MoneyInput = strawberry.field(description=AMOUNT)
    reference: str | None = strawberry.field(description=REFERENCE, default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="A budget whose money is to go to where it earns more.")
class ReallocateBudgetInput:
    budget_id: strawberry.ID = strawberry.field(description="Which; ask budgetReallocation before.")
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="Why a line's spending differs from its plan.")
class ExplainVarianceInput:
    line_id: strawberry.ID = strawberry.field(description="Which line.")
    cause: VarianceCause | None = strawberry.field(description="Why; null: nobody knows.")
    note: str | None = strawberry.field(description="Why, in words; nothing personal.", default=None)
    idempotency_key: str | None = strawberry.field(description=MAYBE_KEY, default=None)


@strawberry.type(description="A budget as it is now, or why not.")
class BudgetPayload:
    budget: Budget | None = strawberry.field(description="The budget.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="An entry, its budget and its commitment as they are now, or why not.")
class BudgetEntryPayload:
    entry: BudgetEntry | None = strawberry.field(description="The entry that was written.", default=None)
    budget: Budget | None = strawberry.field(description="The budget as it is now.", default=None)
    commitment: BudgetCommitment | None = strawberry.field(
        description="The commitment as it is now, if one is meant.", default=None
    )
    warnings: list[UserErrorType] = strawberry.field(
        description="What was done although there is too little, by the line's policy WARN.", default_factory=list
    )
    errors: list[UserErrorType] = errors_field()


def _line(id: str | None, path: str = "lineId") -> str | None:
    return node_id("BudgetLine", id, (path,)).hex if id is not None else None


def _ten_thousandths(said: float | None) -> int | None:
    if said is None:
        return None
    exact = int((Decimal(repr(said)) * UNIT).to_integral_value())
    if not 0 <= exact <= 10**9:
        message = f"expectedRoi is {said}; it takes 0 to {10**9 // UNIT}"
        raise ScrmError("INVALID_ROI", message, path=("lines", "expectedRoi"), params={"expectedRoi": said})
    return exact


def _minor(said: MoneyInput | None) -> int | None:
    return int(said.amount_minor) if said is not None else None


def _cap(said: MoneyInput | None, name: str) -> int | None:
    amount = _minor(said)
    if amount is not None and amount < 1:
        raise ScrmError(
            "INVALID_AMOUNT", f"{name} is {amount}; a cap is 1 or more, or none", path=("lines", name), params={"amount": amount}
        )
    return amount


def _currencies(*said: MoneyInput | None) -> list[str]:
    return sorted({one.currency for one in said if one is not None})


def _new_line(line: BudgetLineInput) -> dict[str, Any]:
    return {
        "category": line.category,
        "share": str(Decimal(repr(line.share))) if line.share is not None else None,
        "amount": _minor(line.amount),
        "policy": line.policy.value,
        "cap_per_day": _cap(line.cap_per_day, "capPerDay"),
        "cap_per_user": _cap(line.cap_per_user, "capPerUser"),
        "expected_roi": _ten_thousandths(line.expected_roi),
        "channels": line.channels,
        "campaigns": line.campaigns,
    }


def _patch(line: BudgetLinePatch) -> dict[str, Any]:
    said: dict[str, Any] = {"line": _line(line.line_id), "allocated": _minor(line.allocated)}
    said |= {"channels": line.channels, "campaigns": line.campaigns}
    if line.policy is not None:
        said["policy"] = line.policy.value
    if line.cap_per_day is not None:
        said["cap_per_day"] = _cap(line.cap_per_day.value, "capPerDay")
    if line.cap_per_user is not None:
        said["cap_per_user"] = _cap(line.cap_per_user.value, "capPerUser")
    if line.expected_roi is not None:
        said["expected_roi"] = _ten_thousandths(line.expected_roi.value)
    return said


async def _for_whom(info: Info, user_id: str | None) -> str | None:
    return (await info.context.user(user_id)).hex if user_id is not None else None


def _id(said: Mapping[str, Any], name: str) -> uuid.UUID:
    return uuid.UUID(said[name])


def _written(decided: Decided, kind: str, commitment: uuid.UUID | None = None) -> BudgetEntryPayload:
    said = decided.properties
    return BudgetEntryPayload(
        entry=ref(BudgetEntry, line_id(decided.event_id, kind)),
        budget=ref(Budget, _id(said, "budget")),
        commitment=ref(BudgetCommitment, commitment) if commitment is not None else None,
        warnings=_warnings(said),
    )


def _warnings(said: Mapping[str, Any]) -> list[UserErrorType]:
    if not said.get("warned"):
        return []
    message = f"{said['over']} more than there is; transfer some to the line"
    params = {"amount": said["amount"], "over": said["over"]}
    return [UserErrorType(code="OVER_BUDGET", message=message, path=["amount"], params=JSON(params))]


async def _of_budget(info: Info, decision: Decision, said: Mapping[str, Any], key: str | None) -> BudgetPayload:
    decided = await info.context.decide(decision, said, key=key or new_id().hex)
    return BudgetPayload(budget=ref(Budget, _id(decided.properties, "budget")))


@extend(Mutation)
class BudgetMutation:
    """Budgets to make, to spend and to change."""

    @mutation("Make a budget: the reserve off the top, the rest split among its lines.", scope=WRITE)
    async def create_budget(self, info: Info, input: CreateBudgetInput) -> BudgetPayload | None:
        amounts: Sequence[MoneyInput | None] = [one.amount for one in input.lines]
        caps = [cap for one in input.lines for cap in (one.cap_per_day, one.cap_per_user)]
        previous = node_id("Budget", input.previous_id, ("previousId",)).hex if input.previous_id is not None else None
        said = {
            "name": input.name,
            "start": input.start.isoformat(),
            "end": input.end.isoformat(),
            "currency": input.total.currency,
            "currencies": _currencies(input.reserve, input.rollover_cap, *amounts, *caps),
            "total": _minor(input.total),
            "reserve": _minor(input.reserve) or 0,
            "preset": input.preset.value if input.preset is not None else None,
            "lines": [_new_line(one) for one in input.lines],
            "previous": previous,
            "rollover": input.rollover.value,
            "rolloverCap": _minor(input.rollover_cap),
        }
        decided = await info.context.decide(create_budget, said, key=input.idempotency_key or new_id().hex)
        return BudgetPayload(budget=ref(Budget, budget_of(decided.event_id)))

    @mutation("Change a budget's name, and what its lines have and name.", scope=WRITE)
    async def update_budget(self, info: Info, input: UpdateBudgetInput) -> BudgetPayload | None:
        caps = [cap.value for one in input.lines for cap in (one.cap_per_day, one.cap_per_user) if cap is not None]
        said = {
            "budget": node_id("Budget", input.id).hex,
            "name": input.name,
            "reserve": _minor(input.reserve),
            "currencies": _currencies(input.reserve, *(one.allocated for one in input.lines), *caps),
            "lines": [_patch(one) for one in input.lines],
        }
        return await _of_budget(info, update_budget, said, input.idempotency_key)

    @mutation("Close a budget before its time: what is committed is free again.", scope=WRITE)
    async def close_budget(self, info: Info, input: CloseBudgetInput) -> BudgetPayload | None:
        said = {"budget": node_id("Budget", input.id).hex}
        return await _of_budget(info, close_budget, said, input.idempotency_key)

    @mutation("Say why a line's spending differs from its plan.", scope=WRITE)
    async def explain_variance(self, info: Info, input: ExplainVarianceInput) -> BudgetPayload | None:
        cause = input.cause.value if input.cause is not None else None
        said = {"line": _line(input.line_id), "cause": cause, "note": input.note}
        return await _of_budget(info, explain_variance, said, input.idempotency_key)

    @mutation("Move a budget's money to where it earns more, as budgetReallocation says.", scope=WRITE)
    async def reallocate_budget(self, info: Info, input: ReallocateBudgetInput) -> BudgetPayload | None:
        said = {"budget": node_id("Budget", input.budget_id, ("budgetId",)).hex}
        return await _of_budget(info, reallocate_budget, said, input.idempotency_key)

    @mutation("Keep money of a line for something, until it is spent, released, or too late.", scope=WRITE)
    async def commit_budget(self, info: Info, input: CommitBudgetInput) -> BudgetEntryPayload | None:
        said = {"line": _line(input.line_id), "amount": _minor(input.amount), "currency": input.amount.currency}
        more = {"user": await _for_whom(info, input.user_id), "reference": input.reference, "seconds": input.expires_in_seconds}
        decided = await info.context.decide(commit_budget, {**said, **more}, key=input.idempotency_key)
        return _written(decided, "COMMIT", commitment_of(decided.event_id))

    @mutation("Give up a commitment: what it keeps is free again.", scope=WRITE)
    async def release_commitment(self, info: Info, input: ReleaseCommitmentInput) -> BudgetEntryPayload | None:
        commitment = node_id("BudgetCommitment", input.commitment_id, ("commitmentId",))
        decided = await info.context.decide(release_commitment, {"commitment": commitment.hex}, key=input.idempotency_key)
        return _written(decided, "RELEASE", commitment)

    @mutation("Spend money of a line, or of a commitment.", scope=WRITE)
    async def spend_budget(self, info: Info, input: SpendBudgetInput) -> BudgetEntryPayload | None:
        if (input.line_id is None) == (input.commitment_id is None):
            raise ScrmError("LINE_OR_COMMITMENT", "say lineId, or commitmentId, and not both", path=("lineId",))
        commitment = None
        if input.commitment_id is not None:
            commitment = node_id("BudgetCommitment", input.commitment_id, ("commitmentId",))
        said = {"line": _line(input.line_id), "commitment": commitment.hex if commitment is not None else None}
        amount = {"amount": _minor(input.amount), "currency": input.amount.currency, "final": input.final}
        more = {"user": await _for_whom(info, input.user_id), "reference": input.reference}
        decided = await info.context.decide(spend_budget, {**said, **amount, **more}, key=input.idempotency_key)
        return _written(decided, "SPEND", commitment)

    @mutation("Take back what was spent, of a closed budget too.", scope=WRITE)
    async def refund_budget(self, info: Info, input: RefundBudgetInput) -> BudgetEntryPayload | None:
        currency = input.amount.currency if input.amount is not None else None
        said = {"entry": node_id("BudgetEntry", input.entry_id, ("entryId",)).hex, "amount": _minor(input.amount)}
        decided = await info.context.decide(
            refund_budget, {**said, "currency": currency, "reference": input.reference}, key=input.idempotency_key
        )
        return _written(decided, "REFUND")

    @mutation("Move money from one line, or the reserve, to another of the budget.", scope=WRITE)
    async def transfer_budget(self, info: Info, input: TransferBudgetInput) -> BudgetEntryPayload | None:
        ends = {"from": _line(input.from_line_id, "fromLineId"), "to": _line(input.to_line_id, "toLineId")}
        amount = {"amount": _minor(input.amount), "currency": input.amount.currency, "reference": input.reference}
        decided = await info.context.decide(transfer_budget, {**ends, **amount}, key=input.idempotency_key)
        return _written(decided, "TRANSFER_OUT")
