"""Requests made up from the schema: the same seed gives the same request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

import orjson
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLNonNull,
    GraphQLSchema,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)

from scrm.graphql import sources
from tests.contract.world import CITIES, NAMES, PERSONAL, TODAY

ROOTS = ["user", "users", "users", "users", "events", "channels", "tags", "tagGroups", "imports", "notes", "node", "nodes"]
OPERATORS = ("StringFilter", "IntFilter", "DateTimeFilter", "DateFilter")
PERSONAL_FIELDS = ("displayName", "phone", "email", "birthday", "birthdayWithinDays")
CHANNELS = ["oa", "mini", "oa-poster", "oa-shelf", "shelf-1", "empty", "nothing"]
POOLS: dict[str, list[Any]] = {
    "displayName": [name for name in NAMES if name] + ["李雷", "B", ""],
    "label": [name for name in NAMES if name] + ["", " ", "%"],
    "city": [city for city in CITIES if city] + ["_", "%", "上"],
    "country": ["中国", "BR", "国"],
    "region": ["上海市", "上"],
    "language": ["zh-CN", "en", "zh"],
    "phone": ["+86 13800000001", "1380", "+86"],
    "email": ["u1@example.com", "@", "u"],
    "channel": CHANNELS,
    "acquisitionChannel": CHANNELS,
    "parent": CHANNELS,
    "keys": ["gold", "silver", "vip", "new", "old", "none", "nothing"],
    "type": ["order.paid", "order.refunded", "shop.visited", "user.unfollowed", "user.tagged", "reads.noted", "x.y"],
    "source": ["shop", "pos", "o'source", "core"],
    "externalId": ['e"3', 'e"44', "nothing"],
    "search": ["o", "VIP", '银"卡', "a", "😀", "%", "_", ""],
    "group": ["level", "plain", "nothing"],
    "key": [
        "n",
        "vip",
        "none",
        "s",
        "list",
        "day",
        "secret",
        "nested",
        "big",
        "zero",
        "orderId",
        "",
        "whisper",
        "a\"b'c",
        "missing",
    ],
    "string": ['it\'s "q" 😀', "", "%_", "5", "true", "o1", "2026", "😀"],
    "day": ["2026-01-01", "2026-01-02", "2000-01-01"],
    "date": ["2026-01-05", "2026-03-01", "1999-01-01"],
    "birthday": ["1990-03-12", "1992-02-29", "2000-03-10"],
    "locale": ["en", "zh-CN"],
    "prefix": ["p", "\"'\\", "😀", ""],
}
IDENTITIES = [
    {"channel": channel, "externalId": key}
    for channel, key in (
        ("oa", "open'3"),
        ("oa-poster", "open'5"),
        ("oa", "open'5"),
        ("mini", "second 3"),
        ("no", "x"),
        ("mini", "open'7"),
    )
]
SPANS = {"from": ["0001-01-01", "2025-12-31", "2026-02-01"], "to": ["2026-03-01", "2026-03-11", "9999-12-31"]}
NUMBERS: list[Any] = [-5, -1, 0, 1, 5, 7, 2500, 10**15, "9007199254740993", 2**53 - 1, "-9007199254740992", "1152921504606846976"]


@dataclass
class Variable:
    """A variable of a request: its type as written, how its values are made, and whether it may be left out."""

    type: Any
    hint: str
    default: str | None = None
    cursor: str | None = None
    size: bool = False
    required: bool = False


@dataclass
class Case:
    """A request and the variables it is asked with."""

    query: str
    variables: dict[str, Variable]
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.query}\nvariables {orjson.dumps(self.values).decode()}"


class Generator:
    """Makes requests for one schema."""

    def __init__(self, schema: GraphQLSchema, seed: int, ids: Mapping[str, Sequence[str]], *, pii: bool) -> None:
        self.schema = schema
        self.random = Random(seed)
        self.ids = ids
        self.pii = pii
        self.variables: dict[str, Variable] = {}
        self.values: dict[str, Any] = {}
        self.fragments: dict[str, tuple[str, str]] = {}
        self._count = 0
        self._left = 0
        self._aliased = False

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def case(self) -> Case:
        """One request."""
        self._left = self.random.choice([6, 14, 30])
        query_type: Any = self.schema.query_type
        roots = [self._field(query_type, self.random.choice(ROOTS), 0) for _ in range(self.random.choice([1, 1, 1, 2, 3]))]
        said = ", ".join(
            f"${name}: {each.type}{f' = {each.default}' if each.default else ''}" for name, each in self.variables.items()
        )
        fragments = "\n".join(f"fragment {name} on {on} {body}" for name, (on, body) in self.fragments.items())
        query = f"query Q{f'({said})' if said else ''} {{\n  " + "\n  ".join(roots) + f"\n}}\n{fragments}"
        return Case(query, self.variables, self.values)

    def same_shape(self, case: Case) -> dict[str, Any]:
        """Other values of the same shape."""
        return {
            name: self._again(each.type, case.values[name], each) for name, each in case.variables.items() if name in case.values
        }

    def other_shape(self, case: Case) -> dict[str, Any]:
        """Other values, absent ones and nulls among them."""
        made = {}
        for name, each in case.variables.items():
            if (
                not is_non_null_type(each.type)
                and each.cursor is None
                and not (each.required and each.default is None)
                and self.chance(0.2)
            ):
                if self.chance(0.5) and not each.required:
                    made[name] = None if not each.size else self.random.randint(1, 3)
                continue
            made[name] = case.values.get(name) if each.cursor else self._new(each)
        return made

    def cursors(self, case: Case, answer: Any) -> dict[str, Any] | None:
        """The values with cursors from an answer put where the request takes one; None if it takes none."""
        found: dict[str, list[str]] = {}
        _collect(answer, found)
        made = dict(case.values)
        for name, each in case.variables.items():
            if each.cursor is not None and found.get(each.cursor):
                made[name] = self.random.choice(found[each.cursor])
        return made if made != case.values else None

    # ---- selections

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def _selection(self, type_: Any, depth: int) -> str:
        names = [name for name in type_.fields if depth < 5 or is_leaf_type(get_named_type(type_.fields[name].type))]
        parts = []
        for _ in range(self.random.choice([1, 2, 3, 4, 6])):
            name = self.random.choice(["__typename", *names]) if names else "__typename"
            leaf = name == "__typename" or is_leaf_type(get_named_type(type_.fields[name].type))
            if not leaf and self._left <= 0:
                continue
            if type_.interfaces and self.chance(0.04):
                parts.append(
                    f"... on {type_.interfaces[0].name}{self._directive()} {{ {self.random.choice(['id', '__typename'])} }}"
                )
            parts.append("__typename" if name == "__typename" else self._wrapped(type_, self._field(type_, name, depth + 1)))
            if name != "__typename" and type_.fields[name].args and leaf:  # the same field with other arguments
                parts += [self._field(type_, name, depth + 1) for _ in range(self.random.choice([1, 2]))]
        return "{ " + " ".join(parts or ["__typename"]) + " }"

    def _wrapped(self, type_: Any, said: str) -> str:
        if self.chance(0.08):
            on = self.random.choice(["", f" on {type_.name}"])
            return f"...{on}{self._directive()} {{ {said} }}"
        if self.chance(0.06):
            name = self._name("F")
            self.fragments[name] = (type_.name, f"{{ {said} }}")
            return f"...{name}{self._directive()}"
        known = [name for name, (on, _) in self.fragments.items() if on == type_.name]
        if known and self.chance(0.05):
            return f"{said} ...{self.random.choice(known)}"
        return said

    def _directive(self) -> str:
        if self.chance(0.75):
            return ""
        word = self.random.choice(["skip", "include"])
        if self.chance(0.3):
            return f" @{word}(if: {self.random.choice(['true', 'false'])})"
        boolean = self.schema.type_map["Boolean"]
        return f" @{word}(if: {self._variable(_non_null(boolean), 'if', self.chance(0.5))})"

    def _field(self, type_: Any, name: str, depth: int) -> str:
        definition = type_.fields[name]
        self._left -= 1
        target: Any = get_named_type(definition.type)
        source = self._source(type_, name)
        connection = sources.origin_of(target.extensions.get("strawberry-definition")) is sources.Connection
        cursor: list[str] = []
        arguments = self._arguments(name, definition, source, depth, cursor)
        alias = f"{self._name(name if self.chance(0.5) else 'a')}: " if arguments or self._aliased or self.chance(0.15) else ""
        directive = self._directive() if depth else ""
        if is_leaf_type(target):
            return f"{alias}{name}{arguments}{directive}"
        if not depth and name in ("node", "nodes"):
            body = self._of_nodes(depth)
        else:
            body = self._selection(target, depth + (0 if connection else 1))
        for each in cursor:
            body = body[:-1] + f"{each}: pageInfo {{ startCursor endCursor hasNextPage hasPreviousPage }} }}"
        return f"{alias}{name}{arguments}{directive} {body}"

    def _of_nodes(self, depth: int) -> str:
        kinds = self.random.sample(["User", "Event", "Channel", "Tag", "TagGroup", "Note", "Import"], 3)
        self._aliased = True  # one name may mean different things on different types
        bodies = [f"... on {kind} {self._selection(self.schema.type_map[kind], depth + 2)}" for kind in kinds]
        self._aliased = False
        return "{ __typename id " + " ".join(bodies) + " }"

    def _source(self, type_: Any, name: str) -> Any:
        definition = type_.fields[name].extensions["strawberry-definition"]
        return (definition.metadata or {}).get(sources.KEY)

    # ---- arguments

    def _arguments(self, name: str, definition: Any, source: Any, depth: int, cursor: list[str]) -> str:
        said: list[str] = []
        args = definition.args
        if name == "user" and depth == 0:
            which = self.random.choice(["id", "id", "identity", "identity"] if self.chance(0.95) else ["none"])
            if which != "none":
                said.append(f"{which}: {self._argument(args[which].type, which)}")
        else:
            for key, argument in args.items():
                if key in ("first", "last", "after", "before"):
                    continue
                if is_non_null_type(argument.type) or self.chance(0.45):
                    said.append(f"{key}: {self._argument(argument.type, 'any' if name in ('node', 'nodes') else key)}")
        if "after" in args:
            said += self._paging(args, depth, cursor)
        return f"({', '.join(said)})" if said else ""

    def _paging(self, args: Any, depth: int, cursor: list[str]) -> list[str]:
        backward = self.chance(0.3)
        size = self.random.randint(1, 3 if depth else 7)
        if not depth and self.chance(0.02):
            size = self.random.choice([0, -1, 101, 2**31 - 1])
        key = "last" if backward else "first"
        said = []
        if depth or self.chance(0.9):
            shown = self._named(args[key].type, key, size, size_=True) if self.chance(0.3) else str(size)
            said.append(f"{key}: {shown}")
        if self.chance(0.35):
            place = self._name("pi")
            cursor.append(place)
            for side in self.random.choice(
                [["after"], ["before"], ["after", "before"]] if self.chance(0.3) else [["before" if backward else "after"]]
            ):
                variable = self._name("c")
                self.variables[variable] = Variable(args["after"].type, "cursor", cursor=place)
                if not depth and self.chance(0.03):
                    self.values[variable] = self.random.choice(
                        ["", "[]", "x", '["1"]', "{}", "1", '["a","b","c"]', "[null,null]"]
                    )
                said.append(f"{side}: ${variable}")
        return said

    def _argument(self, type_: Any, hint: str) -> str:
        if self.chance(0.35):
            return self._variable(type_, hint, self.chance(0.3))
        return self._literal(type_, self._value(type_, hint, 0), hint)

    def _variable(self, type_: Any, hint: str, default: bool) -> str:
        each = Variable(type_, hint, required=is_non_null_type(type_))
        name = self._name("v")
        if default:
            nullable = get_nullable_type(type_)
            each.type = nullable
            each.default = self._plain(nullable, self._value(_non_null(nullable), hint, 1))
            self.variables[name] = each
            if self.chance(0.5):
                self.values[name] = self._value(_non_null(nullable), hint, 1)
            return f"${name}"
        self.variables[name] = each
        self.values[name] = self._value(type_, hint, 0)
        return f"${name}"

    def _named(self, type_: Any, hint: str, value: Any, *, size_: bool = False) -> str:
        name = self._name("v")
        self.variables[name] = Variable(type_, hint, size=size_)
        self.values[name] = value
        return f"${name}"

    def _literal(self, type_: Any, value: Any, hint: str) -> str:
        """A value written in the document, some of its parts as variables."""
        if value is not None and self.chance(0.12):
            return self._named(type_, hint, value)
        nullable: Any = get_nullable_type(type_)
        if value is not None and is_list_type(nullable):
            return "[" + ", ".join(self._literal(nullable.of_type, each, hint) for each in value) + "]"
        if value is not None and isinstance(nullable, GraphQLInputObjectType):
            parts = [
                f"{key}: {self._literal(nullable.fields[key].type, each, self._hint(nullable, key, hint))}"
                for key, each in value.items()
            ]
            return "{" + ", ".join(parts) + "}"
        return self._plain(type_, value)

    def _plain(self, type_: Any, value: Any) -> str:
        nullable: Any = get_nullable_type(type_)
        if value is None:
            return "null"
        if is_list_type(nullable):
            return "[" + ", ".join(self._plain(nullable.of_type, each) for each in value) + "]"
        if isinstance(nullable, GraphQLInputObjectType):
            return "{" + ", ".join(f"{key}: {self._plain(nullable.fields[key].type, each)}" for key, each in value.items()) + "}"
        if isinstance(nullable, GraphQLEnumType):
            return str(value)
        return orjson.dumps(value).decode()

    # ---- values

    def _hint(self, type_: Any, key: str, hint: str) -> str:
        return hint if type_.name in OPERATORS else key

    def _new(self, each: Variable) -> Any:
        return self.random.randint(1, 4) if each.size else self._value(each.type, each.hint, 0)

    def _value(self, type_: Any, hint: str, depth: int) -> Any:
        if is_non_null_type(type_):
            type_ = type_.of_type
        elif depth and self.chance(0.04) and hint in ("eq_or_ne",):
            return None
        if is_list_type(type_):
            sizes = [1, 1, 2] if isinstance(get_named_type(type_), GraphQLInputObjectType) else [0, 1, 2, 3]
            return [
                self._value(_non_null(get_nullable_type(type_.of_type)), hint, depth + 1)
                for _ in range(self.random.choice(sizes))
            ]
        if isinstance(type_, GraphQLInputObjectType):
            return self._object(type_, hint, depth)
        if isinstance(type_, GraphQLEnumType):
            return self.random.choice(list(type_.values))
        return self._leaf(type_.name, hint)

    def _object(self, type_: Any, hint: str, depth: int) -> Any:
        if type_.name.endswith("Order"):
            names = [name for name in type_.fields if self.pii or name not in PERSONAL_FIELDS]
            return {self.random.choice(names): self.random.choice(["ASC", "DESC"])}
        if type_.name == "IdentityInput":
            return self.random.choice(IDENTITIES)
        made = {}
        names = list(type_.fields)
        count = self.random.choice([1, 1, 2] if depth else [1, 2, 3])
        for name in [name for name in names if is_non_null_type(type_.fields[name].type)] + self.random.sample(
            names, min(count, len(names))
        ):
            if name in ("and", "or", "not") and depth > 2:
                continue
            if not self.pii and type_.name == "UserFilter" and name in PERSONAL_FIELDS:
                continue
            made[name] = self._operand(type_, name, hint, depth)
        return made

    def _operand(self, type_: Any, name: str, hint: str, depth: int) -> Any:
        if type_.name in OPERATORS and name in ("eq", "ne", "isNull") and self.chance(0.1):
            return None
        if type_.name not in OPERATORS and not is_non_null_type(type_.fields[name].type) and self.chance(0.04):
            return None
        return self._value(_non_null(get_nullable_type(type_.fields[name].type)), self._hint(type_, name, hint), depth + 1)

    def _leaf(self, kind: str, hint: str) -> Any:
        if kind == "ID":
            anything = hint == "any" or (hint == "id" and self.chance(0.1))
            return self.random.choice([each for ids in self.ids.values() for each in ids] if anything else self.ids["User"])
        if kind == "Boolean":
            return self.chance(0.5)
        if kind == "BigInt":
            return self.random.choice([0, 1, 2, 3] if hint in ("count", "rank", "noteCount") and self.chance(0.7) else NUMBERS)
        if kind == "Int":
            days = hint in ("withinDays", "birthdayWithinDays")  # less than a day is refused, without a look at the rows
            return self.random.choice([1, 1, 1, 2, 3, 30, 366, 2**31 - 1] if days else [-1, 0, 1, 2, 3, 30, 366, 2**31 - 1])
        if kind == "DateTime":
            moment = TODAY - timedelta(
                days=self.random.choice([-1, 0, 1, 9, 40, 60, 68, 120]), seconds=self.random.choice([0, 0, 3600])
            )
            return moment.isoformat() if self.chance(0.5) else moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
        if kind == "Date":
            return self.random.choice(SPANS.get(hint) or POOLS["day"] + POOLS["date"] + POOLS["birthday"])
        pool = POOLS.get(hint, ["", "x", "o'x"])
        keys = [key for key in pool if self.pii or key not in (*PERSONAL, "whisper")] if hint == "key" else pool
        return self.random.choice(keys)

    def _again(self, type_: Any, value: Any, each: Variable, hint: str | None = None) -> Any:
        hint = each.hint if hint is None else hint
        nullable: Any = get_nullable_type(type_)
        if value is None or each.cursor or each.size:
            return value
        if isinstance(nullable, GraphQLInputObjectType):
            return {
                key: self._again(nullable.fields[key].type, one, each, self._hint(nullable, key, hint))
                for key, one in value.items()
            }
        named = get_named_type(nullable)
        if isinstance(named, GraphQLEnumType) or named.name == "Boolean":
            return value
        if is_list_type(nullable):
            if isinstance(named, GraphQLInputObjectType):
                return [self._again(nullable.of_type, one, each, hint) for one in value]
            return self._value(_non_null(nullable), hint, 1)
        return self._leaf(named.name, hint)


def _non_null(type_: Any) -> Any:
    return type_ if is_non_null_type(type_) else GraphQLNonNull(type_)


def _collect(answer: Any, found: dict[str, list[str]]) -> None:
    if isinstance(answer, list):
        for each in answer:
            _collect(each, found)
    elif isinstance(answer, dict):
        for key, each in answer.items():
            if key.startswith("pi_") and isinstance(each, dict):
                found.setdefault(key, []).extend(cursor for cursor in (each["startCursor"], each["endCursor"]) if cursor)
            else:
                _collect(each, found)
