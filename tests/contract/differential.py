"""Asks the same thing the compiled way and the slow way, and says where the answers part."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from graphql import parse

from scrm.sql import Moment
from tests.contract.generate import Case, Generator
from tests.contract.interpreter import Asked, Interpreter
from tests.contract.world import ZONE, World


@dataclass
class Difference(Exception):
    """Where two answers part."""

    seed: int
    case: Case
    compiled: str
    interpreted: str

    def __str__(self) -> str:
        return f"seed {self.seed}\n{self.case}\n\ncompiled     {self.compiled}\ninterpreted  {self.interpreted}"


class Differential:
    """Compares on one world."""

    def __init__(self, world: World) -> None:
        frozen = world.client.app.state.frozen
        self.world = world
        self.schema = frozen.schema._schema
        self.interpreter = Interpreter(self.schema, frozen.model.personal_keys)
        self.ids: dict[str, list[str]] = {}

    async def prepare(self) -> None:
        """Learn the ids that requests can name."""
        data = await self.world.client.data(
            """{ users(first: 100) { nodes { id } } events(first: 30) { nodes { id } } channels { nodes { id } }
                 tags { nodes { id } } tagGroups { id } notes { nodes { id } } imports { nodes { id } } }"""
        )
        for of in data.values():
            for each in of if isinstance(of, list) else of["nodes"]:
                self.ids.setdefault(each["id"].rpartition("_")[0], []).append(each["id"])
        self.ids["User"].append(f"User_{uuid.UUID(int=7).hex}")

    async def seed(self, seed: int) -> int:
        """One generated request, asked in several ways; returns how many answers were compared.

        Raises: Difference.
        """
        pii = seed % 5 != 0
        generator = Generator(self.schema, seed, self.ids, pii=pii)
        case = generator.case()
        answer = await self.compare(seed, case, pii)
        compared = 1
        for values in self._ways(generator, case, answer):
            again = Case(case.query, case.variables, values)
            if values is case.values:
                await self._again(seed, case, pii, answer)
            else:
                await self.compare(seed, again, pii)
            compared += 1
        return compared

    async def _again(self, seed: int, case: Case, pii: bool, answer: Any) -> None:
        compiled = orjson.loads(await self.world.bytes(case.query, case.values, pii=pii))
        left, right = canonical(simple(compiled)), canonical(simple(answer))
        if left != right:
            raise Difference(seed, case, left + said(compiled), f"(the answer before) {right}")
        short, long = await self._both_ways(case, pii)
        if short != long:
            raise Difference(seed, case, f"(the short way) {short!r}", f"(the long way) {long!r}")

    async def _both_ways(self, case: Case, pii: bool) -> tuple[bytes, bytes]:
        """What the short way and the long way write, but for what is left of the caller's means."""
        shortcut = self.world.client.app.state.endpoint.shortcut
        answers = []
        for way in (True, False):
            shortcut.open = way
            try:
                answers.append((await self.world.bytes(case.query, case.values, pii=pii)).rpartition(b',"extensions":{"cost"')[0])
            finally:
                shortcut.open = True
        return answers[0], answers[1]

    def _ways(self, generator: Generator, case: Case, answer: Any) -> Iterator[dict[str, Any]]:
        yield case.values
        further = generator.cursors(case, answer.get("data"))
        if further is not None:
            yield further
        if case.values and generator.chance(0.6):
            yield generator.same_shape(case)
        if case.variables and generator.chance(0.6):
            yield generator.other_shape(case)

    async def compare(self, seed: int, case: Case, pii: bool) -> Any:
        """The compiled answer, if it is the interpreter's too."""
        compiled = orjson.loads(await self.world.bytes(case.query, case.values, pii=pii))
        found = await self.interpreted(case.query, case.values, pii=pii)
        left = canonical(simple(compiled))
        if left != (right := canonical(found)):
            raise Difference(seed, case, left + said(compiled), right)
        return compiled

    async def interpreted(self, query: str, variables: Mapping[str, Any], *, pii: bool = True) -> dict[str, Any]:
        """The interpreter's answer."""
        now = self.world.clock()
        moment = Moment(now, self.world.client.services.settings.currency, ZONE)
        asked = Asked(moment, self.world.client.services.settings.language, pii)
        outcome = await self.world.db.read(self.interpreter.run, parse(query), variables, asked)
        return {"data": outcome.data, "errors": [[list(path), code] for path, code in outcome.errors]}


def simple(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer's data and the paths and codes of its errors."""
    errors = [[each.get("path", []), each["extensions"]["code"]] for each in answer.get("errors", ())]
    return {"data": answer.get("data"), "errors": sorted(errors)}


def said(answer: Mapping[str, Any]) -> str:
    return "".join(f"\n  {each['message']}" for each in answer.get("errors", ()))


def canonical(answer: Any) -> str:
    """The answer as text: keys in their order, a float without a fraction as a whole number."""
    return orjson.dumps(_canonical(answer)).decode()


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return value
