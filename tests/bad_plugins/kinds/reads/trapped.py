"""Has batch fields and queries whose answers try to end the server where they are read: a mapping, a key, a value, an item of a list.

Outcome: these fields are null with PLUGIN_FIELD_FAILED; what is only a text or a number in disguise comes out.
State: active
Asks: { trappedItems users(first: 2) { nodes { id trappedGet trappedHash trappedValue trappedJson trappedWord goodOrders goodWord } } viewer { name } }
Fails: trappedItems trappedGet trappedHash trappedValue trappedJson
Check: no problems
"""

from scrm.api import ANY_KEY, JSON, Contribution, Info, Query, User, batch, extend, hookimpl, query


class Mapping(dict):
    def get(self, key, default=None):
        raise SystemExit(9)


class Key:
    def __init__(self, key):
        self.hash = hash(key)

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        raise SystemExit(9)


class Value:
    @property
    def value(self):
        raise SystemExit(9)


class Word(str):
    def __str__(self):
        raise SystemExit(9)


async def answer_get(keys, info):
    return Mapping(dict.fromkeys(keys, 1))


async def answer_hash(keys, info):
    return {Key(key): 1 for key in keys}


async def answer_value(keys, info):
    return {key: Value() for key in keys}


async def answer_json(keys, info):
    return {key: {"deep": Value()} for key in keys}


async def answer_word(keys, info):
    return {key: Word("fine") for key in keys}


async def item():
    raise SystemExit(9)


@extend(Query)
class Asked:
    @query("Numbers.", scope=ANY_KEY)
    def trapped_items(self, info: Info) -> list[int] | None:
        return [item(), item()]


@extend(User, scope="users:read")
class More:
    trapped_get: int | None = batch("A number.", answer_get, needs=["id"])
    trapped_hash: int | None = batch("A number.", answer_hash, needs=["id"])
    trapped_value: int | None = batch("A number.", answer_value, needs=["id"])
    trapped_json: JSON | None = batch("Anything.", answer_json, needs=["id"])
    trapped_word: str | None = batch("A word.", answer_word, needs=["id"])


@hookimpl
def contribute():
    return Contribution(name="trapped", version="1.0", query=[Asked], extends=[More])
