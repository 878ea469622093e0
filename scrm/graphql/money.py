"""Money as the front end sees it: minor units, the currency, and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import strawberry

from scrm.graphql.scalars import BigInt
from scrm.graphql.sources import BatchInfo, arg, batch, column, rows, same_row
from scrm.money import formatted_money


async def _formatted(keys: Sequence[tuple[int, str]], info: BatchInfo, locale: str | None) -> Mapping[Any, str]:
    return {key: formatted_money(int(key[0]), key[1], locale or info.language) for key in keys}


@rows(None, public=True)
class Money:
    """An amount of money, exact."""

    amount_minor: BigInt = column("In the currency's minor unit, such as fen or cents.")
    currency: str = column("ISO 4217 code.")
    formatted: str = batch(
        "In words for people, by the locale given or the request's language.",
        _formatted,
        needs=["amount_minor", "currency"],
        locale=arg(str | None, "A language tag such as zh-CN or en."),
    )


@dataclass(frozen=True, slots=True)
class Amount:
    """A `Money` that Python holds: what a resolver returns where its field is one."""

    amount_minor: int
    currency: str


@strawberry.input(description="An amount of money, exact.")
class MoneyInput:
    amount_minor: BigInt = strawberry.field(description="In the currency's minor unit, such as fen or cents.")
    currency: str = strawberry.field(description="ISO 4217 code.")


def money(description: str, amount: Any, currency: Any, *, scope: str | None = None) -> Any:
    """A Money made of two expressions on the row; null where the amount is."""

    def values(row: Any) -> Mapping[str, sa.ColumnElement[Any]]:
        return {"amount_minor": amount(row), "currency": currency(row)}

    return same_row(description, values, null_without="amount_minor", scope=scope)
