"""A user's own fields: what may stand in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Any

from scrm.errors import ScrmError
from scrm.text import MAX_KEY, check_json, check_text

FIELDS = (
    "display_name",
    "phone",
    "email",
    "gender",
    "birthday",
    "country",
    "region",
    "city",
    "language",
    "attributes",
)
"""What a caller may say of a user, by column name."""

LIMITS = {"display_name": 200, "phone": 40, "email": 254, "country": 100, "region": 100, "city": 100}
MAX_ATTRIBUTES = 200

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
_PHONE = re.compile(r"[+*0-9][0-9*#x ()./-]*")


class Gender(StrEnum):
    """What a person says of themself."""

    FEMALE = "FEMALE"
    MALE = "MALE"
    OTHER = "OTHER"


def check_fields(values: Mapping[str, Any], *, today: date) -> dict[str, Any]:
    """The fields as they will be kept: text trimmed, empty text as None, `attributes` an object.

    Raises:
        ScrmError: `INVALID_TEXT`, `INVALID_PHONE`, `INVALID_EMAIL`, `INVALID_GENDER`, `INVALID_BIRTHDAY`, `INVALID_LANGUAGE`,
            `INVALID_ATTRIBUTES`.
    """
    return {name: _check(name, value, today) for name, value in values.items()}


def _check(name: str, value: Any, today: date) -> Any:
    if name == "attributes":
        return _attributes(value)
    if name == "birthday":
        return _birthday(value, today)
    if name == "gender":
        if value is not None and value not in Gender.__members__:
            raise ScrmError("INVALID_GENDER", f'gender is "{value}"; expected one of {", ".join(Gender)}', path=("gender",))
        return str(value) if value is not None else None
    if name not in FIELDS:
        raise TypeError(f"a user has no {name} to change")
    text = check_text(value, (camel(name),), limit=LIMITS.get(name, MAX_KEY)) if value is not None else None
    pattern = {"phone": _PHONE, "email": _EMAIL, "language": _LANGUAGE}.get(name)
    if text and pattern is not None and not pattern.fullmatch(text):
        raise ScrmError(f"INVALID_{name.upper()}", f"{name} does not look like one; {_HINT[name]}", path=(name,))
    return text or None


_HINT = {
    "phone": "use digits with an optional + in front",
    "email": "use name@domain",
    "language": "use a tag as zh-CN or en",
}


def _birthday(value: date | None, today: date) -> date | None:
    if value is not None and not date(1900, 1, 1) <= value <= today:
        said = f"birthday is {value}; expected a day from 1900-01-01 to today"
        raise ScrmError("INVALID_BIRTHDAY", said, path=("birthday",))
    return value


def _attributes(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    path = ("attributes",)
    if not isinstance(value, dict):
        raise ScrmError("INVALID_ATTRIBUTES", "attributes is not a JSON object", path=path)
    if len(value) > MAX_ATTRIBUTES:
        raise ScrmError("INVALID_ATTRIBUTES", f"attributes has {len(value)} keys; at most {MAX_ATTRIBUTES} are kept", path=path)
    check_json(value, path, code="INVALID_ATTRIBUTES")
    for key in value:
        if not key or len(key) > MAX_KEY:
            raise ScrmError("INVALID_ATTRIBUTES", f"attributes has a key that is empty or over {MAX_KEY} characters", path=path)
    return value


def camel(name: str) -> str:
    """A column's name as the API writes it."""
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)
