"""Has queries, a source function and a batch field that raise what cannot be put into words.

Outcome: these fields are null with PLUGIN_FIELD_FAILED, and the server goes on.
State: active
Asks: { unspeakableNumber unspeakableCode users(first: 2) { nodes { id unspeakableSql unspeakableBatch goodOrders goodWord } } viewer { name } }
Fails: unspeakableNumber unspeakableCode unspeakableSql unspeakableBatch
Check: field User.unspeakableSql of unspeakable fails: RuntimeError: a source function raised UnspeakableError; mend its source
"""

from scrm.api import ANY_KEY, Contribution, Info, Query, ScrmError, User, batch, expression, extend, hookimpl, query


class UnspeakableError(BaseException):
    @property
    def sqlstate(self):
        raise SystemExit(9)

    def __str__(self):
        raise SystemExit(9)


class CodelessError(ScrmError):
    def __str__(self):
        raise RuntimeError

    @property
    def message(self):
        raise RuntimeError

    @message.setter
    def message(self, value):
        pass


def sql(user):
    raise UnspeakableError


async def load(keys, info):
    raise UnspeakableError


@extend(Query)
class Asked:
    @query("A number.", scope=ANY_KEY)
    async def unspeakable_number(self, info: Info) -> int | None:
        raise UnspeakableError

    @query("A number.", scope=ANY_KEY)
    async def unspeakable_code(self, info: Info) -> int | None:
        raise CodelessError("CODE", "words")


@extend(User, scope="users:read")
class More:
    unspeakable_sql: int | None = expression("A number.", sql)
    unspeakable_batch: int | None = batch("A number.", load, needs=["id"])


@hookimpl
def contribute():
    return Contribution(name="unspeakable", version="1.0", query=[Asked], extends=[More])
