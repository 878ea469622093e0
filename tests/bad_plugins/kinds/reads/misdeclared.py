"""Has fields whose SQL gives something else than they declare: text for a number, numbers for yes or no, what is no JSON, and no end.

Outcome: these fields are null with PLUGIN_FIELD_FAILED, on both engines; those that give what they declare come out.
State: active
Asks: { users(first: 2) { nodes { id declaredInt declaredLarge declaredFloat declaredBool declaredDate declaredTime declaredList declaredHalf declaredKind goodOrders goodWord rightInt rightLarge rightFloat rightBool rightDate rightTime rightList rightJson rightText rightKind } } }
Fails: declaredInt declaredLarge declaredFloat declaredBool declaredDate declaredTime declaredList declaredHalf declaredKind
Check: field User.declaredInt of misdeclared is declared as int, and its SQL is of the type TEXT; make them one; field User.declaredList of misdeclared is declared as list, …; field User.declaredHalf of misdeclared …; make them one
"""

import datetime as dt
from enum import Enum

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from scrm.api import JSON, BigInt, Contribution, User, enum, expression, extend, hookimpl, users


class numbers(FunctionElement):
    """A list, as each database makes it."""

    type = sa.JSON()
    inherit_cache = True


@compiles(numbers)
def _numbers(element, compiler, **kw):
    return f"json_{'' if compiler.dialect.name == 'sqlite' else 'build_'}array(1, 2)"


def gives(text, type_=None):
    return lambda user: sa.literal_column(text, type_)


@enum("A kind.", ROUND="Round.")
class Kind(Enum):
    ROUND = "ROUND"


@extend(User, scope="users:read")
class More:
    declared_int: int | None = expression("A number.", gives("'text'", sa.Text()))
    declared_large: int | None = expression("A number.", gives("2147483648"))
    declared_float: float | None = expression("A number.", lambda user: sa.literal(float("inf")))
    declared_bool: bool | None = expression("Yes or no.", gives("5", sa.Boolean()))
    declared_date: dt.date | None = expression("A day.", gives("'yesterday'", sa.Date()))
    declared_time: dt.datetime | None = expression("A time.", gives("'noon or so'", sa.DateTime()))
    declared_list: list[int] | None = expression("Numbers.", gives("'[1'", sa.Text()))
    declared_half: list[int] | None = expression("Numbers.", gives("'{\"a\": 1}'", sa.Text()))
    declared_kind: Kind | None = expression("A kind.", gives("'SQUARE'", sa.Text()))
    right_int: int | None = expression("A number.", gives("12"))
    right_large: BigInt | None = expression("A number.", gives("9007199254740993"))
    right_float: float | None = expression("A number.", gives("0.1 + 0.2"))
    right_bool: bool | None = expression("Yes or no.", gives("1 = 1"))
    right_date: dt.date | None = expression("A day.", lambda user: sa.literal(dt.date(2026, 3, 1)))
    right_time: dt.datetime | None = expression(
        "A time.", lambda user: sa.select(sa.func.max(users.c.created_at)).scalar_subquery()
    )
    right_list: list[int] | None = expression("Numbers.", lambda user: numbers())
    right_json: JSON | None = expression("Anything.", lambda user: numbers())
    right_text: str | None = expression("A word.", gives("'said \"so\"'"))
    right_kind: Kind | None = expression("A kind.", gives("'ROUND'", sa.Text()))


@hookimpl
def contribute():
    return Contribution(name="misdeclared", version="1.0", extends=[More])
