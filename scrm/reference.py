"""Tables for people, made of the code: what may be set, and what a key may be allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Secret, SecretStr
from pydantic.fields import FieldInfo

from scrm.conditions import PropertyFilter
from scrm.plugin import UNSET, BusinessRules, Contribution, Scope

_WORDS: dict[type, str] = {
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    Decimal: "number",
    str: "text",
    Path: "path of a file",
    timedelta: "duration",
    datetime: "time with its zone",
    date: "date",
    SecretStr: "secret text",
    PropertyFilter: "list of conditions",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name with those it lies under, what it takes, its default, and its description."""

    name: str
    takes: str
    default: str
    meaning: str


def settings_of(*models: type[BaseModel], under: str = "", above: frozenset[type[BaseModel]] = frozenset()) -> list[Setting]:
    """Every setting of pydantic models in their order. Those of a model within them are `outer.inner`, of models in a list
    `outer[].inner`, and where it may be one of several, `outer(tag).inner`; a model within itself is not gone into again."""
    found = []
    for model in models:
        for name, field in model.model_fields.items():
            inner = _within(field.annotation)
            if [place for place, _ in inner] != [""]:
                takes = _takes(field.annotation, field.metadata)
                found.append(Setting(f"{under}{name}", takes, _default(field), field.description or ""))
            for place, one in inner:
                if one not in above and one is not model:
                    found += settings_of(one, under=f"{under}{name}{place}.", above=above | {model})
    return found


def settings_of_plugin(brought: Contribution) -> list[Setting]:
    """What can be set in a plugin's section: its rules, its wiring, and what it has from the house unless it is set."""
    found = settings_of(brought.rules, brought.wiring)
    return sorted(found, key=lambda one: one.name in BusinessRules.model_fields)


def settings_table(settings: Iterable[Setting]) -> str:
    """Settings as a table in Markdown, which ends with a line's end."""
    rows = ((f"`{one.name}`", one.takes, one.default, one.meaning) for one in settings)
    return markdown(("setting", "takes", "default", "meaning"), rows)


def scopes_table(scopes: Iterable[Scope]) -> str:
    """Scopes as a table in Markdown, which ends with a line's end."""
    return markdown(("scope", "what a key may do with it"), ((f"`{one.name}`", one.description) for one in scopes))


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [_line(columns), f"|{'---|' * len(columns)}", *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def _within(annotation: Any) -> list[tuple[str, type[BaseModel]]]:
    """The models of settings one level below, each with its place: empty for one alone, `[]` in a list, a tag among several."""
    found = []
    for choice in _choices(annotation):
        listed = get_origin(choice) in (list, tuple)
        models = filter(_is_model, _choices(get_args(choice)[0]) if listed else [choice])
        found += [("[]" if listed else "", one) for one in models]
    if len(found) == 1:
        return found
    return [(f"{place}({_tag(one)})", one) for place, one in found]


def _is_model(one: Any) -> bool:
    return isinstance(one, type) and issubclass(one, BaseModel)


def _tag(model: type[BaseModel]) -> str:
    """What tells a model from others that may stand in its place: the value of the field that has but one."""
    tags = [get_args(field.annotation) for field in model.model_fields.values() if get_origin(field.annotation) is Literal]
    return next((_plain(values[0]) for values in tags if len(values) == 1), model.__name__)


def _choices(annotation: Any) -> list[Any]:
    """A union's members without None; of anything else itself, without what is annotated."""
    if get_origin(annotation) is Annotated and any(map(_is_model, _choices(get_args(annotation)[0]))):
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [each for one in get_args(annotation) if one is not NoneType for each in _choices(one)]
    return [annotation]


def _takes(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    words = " or ".join(dict.fromkeys(_word(one) for one in _choices(annotation)))
    limits = ", ".join(_limits(metadata))
    return f"{words}, {limits}" if limits else words


def _word(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _takes(inner[0], inner[1:])
    if origin is Literal:
        return _one_of(inner)
    if origin in (list, tuple, set, frozenset):
        return "list of tables" if any(map(_is_model, _choices(inner[0]))) else f"list of {_takes(inner[0])}"
    if origin in (dict, Mapping) or annotation is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _one_of([member.value for member in annotation])
    if origin is Secret:
        return "secret text"
    if _is_model(annotation):
        return "table"
    return _WORDS.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _one_of(values: Sequence[Any]) -> str:
    *some, last = (f"`{_plain(value)}`" for value in values)
    return f"{', '.join(some)} or {last}" if some else last


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    plain = [each for one in metadata for each in (one.metadata if isinstance(one, FieldInfo) else [one])]
    said = {name: value for one in plain for name in _LIMITS if (value := getattr(one, name, None)) is not None}
    if "ge" in said and "le" in said:
        yield f"{said.pop('ge')} to {said.pop('le')}"
    for name, value in said.items():
        yield _LIMITS[name].format(value)


_LIMITS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "multiple_of": "a multiple of {}",
    "min_length": "no shorter than {}",
    "max_length": "no longer than {}",
    "pattern": "matching `{}`",
}


def _default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and UNSET in extra:
        return str(extra[UNSET])
    if field.is_required():
        return "has to be set"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == [] or value == {} or value == ():
        return "none"
    if isinstance(value, SecretStr | Secret):
        return "a secret"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(f"`{_plain(one)}`" for one in value)
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value.value if isinstance(value, Enum) else value)
