"""Has a field whose SQL never ends.

Outcome: the first requests are answered TIMEOUT; then that field is null for a minute, and the rest comes out.
State: active
Asks: { users(first: 2) { nodes { id endlessNumber endlessWord goodOrders goodWord } } }
Fails: endlessNumber
Check: no problems
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, expression, extend, hookimpl

ENDLESS = "(with recursive n(x) as (select 1 union all select x + 1 - 1 from n) select max(x) from n)"


@extend(User, scope="users:read")
class More:
    endless_number: int | None = expression("A number.", lambda user: sa.literal_column(ENDLESS, sa.Integer()))
    endless_word: str | None = expression("A word.", lambda user: sa.literal("word"))


@hookimpl
def contribute():
    return Contribution(name="endless", version="1.0", extends=[More])
