"""README's first query asks what the schema has, and its commands exist."""

import json
import re
from pathlib import Path

from graphql import build_schema, parse, validate
from typer.main import get_command

from scrm.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def keys_of(value: object) -> object:
    if isinstance(value, dict):
        return {key: keys_of(each) for key, each in value.items()}
    return [keys_of(each) for each in value[:1]] if isinstance(value, list) else None


def test_the_first_query_fits_the_schema_and_its_answer_fits_the_query() -> None:
    schema = build_schema((ROOT / "tests" / "schema.graphql").read_text(encoding="utf-8"))
    query = re.findall(r"```graphql\n(.*?)```", README, re.DOTALL)[0]
    assert validate(schema, parse(query)) == []
    answer = json.loads(re.findall(r"```json\n(.*?)```", README, re.DOTALL)[0])
    assert list(answer["data"]["users"]["nodes"][0]) == ["displayName", "identities", "tags", "points", "events"]
    assert keys_of(answer["data"]["users"]["nodes"][0]["points"]) == {"balance": None, "expiring": []}


def test_every_command_it_names_exists() -> None:
    known = get_command(app)
    for line in re.findall(r"^scrm (.*)$", README, re.MULTILINE):
        words = line.split()
        command = getattr(known, "commands", {})[words[0]]
        if hasattr(command, "commands"):
            assert words[1] in command.commands, line
