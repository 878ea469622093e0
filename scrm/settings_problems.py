"""What is wrong with settings, in words."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

FILE = "scrm.toml"
PREFIX = "SCRM_"

_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "decimal_parsing": "a number",
    "decimal_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "date_from_datetime_parsing": "a date",
    "date_parsing": "a date",
    "datetime_parsing": "a time with its zone",
    "time_delta_parsing": "a duration",
    "url_parsing": "an address such as https://example.com",
}


LONGEST_SHOWN = 200
"""Characters of a value that a message shows."""


def explain(error: ValidationError, model: type[BaseModel], place: Sequence[str] = ()) -> list[str]:
    """Each problem as one line that names the setting, its value and what was expected; a secret's value is not shown."""
    return [_explain_one(problem, model, place) for problem in error.errors(include_url=False)]


def _explain_one(problem: ErrorDetails, model: type[BaseModel], place: Sequence[str]) -> str:
    path = [str(part) for part in problem["loc"]]
    name = ".".join([*place, *path])
    kind = problem["type"]
    if kind == "extra_forbidden":
        return unknown((*place, *path), list(_model_at(model, path[:-1]).model_fields))
    if kind == "missing":
        return f"setting {name} is missing; add it to {FILE} or set SCRM_{'__'.join([*place, *path]).upper()}"
    expected = _EXPECTED.get(kind) or _plain(problem)
    if (variable := _variable_of([*place, *path])) is not None:
        name = f"{name}, from the variable {variable},"
    if _is_secret(model, path):
        return f"setting {name} is not what it should be (and not shown, as it may hold a secret); expected {expected}"
    return f"setting {name} is {_shown(problem['input'])}; expected {expected}"


def _shown(value: Any) -> str:
    """A value as it may be written, its beginning where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _variable_of(path: Sequence[str]) -> str | None:
    """The environment variable that says a setting, if one does."""
    names = {f"{PREFIX}{'__'.join(path[:length])}".upper() for length in range(1, len(path) + 1)}
    return next((variable for variable in os.environ if variable.upper() in names), None)


def unknown(path: Sequence[str], known: Sequence[str]) -> str:
    """What is said of a setting that does not exist."""
    near = difflib.get_close_matches(path[-1], known, 1)
    way_out = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
    return f"setting {'.'.join(path)} is unknown; {way_out}"


def _plain(problem: ErrorDetails) -> str:
    text = problem["msg"].removeprefix("Value error, ")
    for start in ("Input should be ", "input should be "):
        text = text.removeprefix(start)
    return text if text[:1] in "'\"" or text.isupper() else text[:1].lower() + text[1:]


def _model_at(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    for part in path:
        field = model.model_fields.get(part)
        said = field.annotation if field else None
        inner = next((each for each in (said, *get_args(said)) if isinstance(each, type) and issubclass(each, BaseModel)), None)
        if inner is None:
            break
        model = inner
    return model


def _is_secret(model: type[BaseModel], path: Sequence[str]) -> bool:
    field = _model_at(model, path[:-1]).model_fields.get(path[-1]) if path else None
    return field is not None and ("Secret" in str(field.annotation) or path[-1] == "database_url")
