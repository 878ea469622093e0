"""Has a field whose SQL fails in the database, beside others that work.

Outcome: the statement is run again until the field is found that fails, which is null; the plugin's others, the core's and the others' come out.
State: active
Asks: { users(first: 2) { nodes { id missingFirst missingNumber missingLast goodOrders goodWord } } }
Fails: missingNumber
Check: field User.missingNumber of missing fails: OperationalError: no such table: missing_nothing; mend its source
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, expression, extend, hookimpl


def nowhere(user):
    return sa.select(sa.literal_column("1")).select_from(sa.table("missing_nothing")).scalar_subquery()


@extend(User, scope="users:read")
class More:
    missing_first: int | None = expression("A number.", lambda user: sa.literal(1))
    missing_number: int | None = expression("A number.", nowhere)
    missing_last: int | None = expression("A number.", lambda user: sa.literal(3))


@hookimpl
def contribute():
    return Contribution(name="missing", version="1.0", extends=[More])
