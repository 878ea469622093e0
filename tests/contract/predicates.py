"""What the filters mean, said again in Python on the rows themselves; a plugin's own condition is asked in SQL, row by row."""

from __future__ import annotations

import calendar
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from scrm.channels.models import channels
from scrm.errors import ScrmError
from scrm.events.models import events
from scrm.graphql import sources
from scrm.tags.models import tag_groups, tags, user_tags
from scrm.users.models import identities

Check = Callable[[Any, Any, Any], bool]


def operators(value: Any, given: Mapping[str, Any]) -> bool:
    """Every operator that was given holds for a value; None is a missing one."""
    return all(_operator(value, name, said) for name, said in given.items())


def _operator(value: Any, name: str, said: Any) -> bool:
    if name == "isNull":
        return said is None or (value is None) == said
    if said is None:
        if name not in ("eq", "ne"):
            raise ScrmError("INVALID_FILTER", "no null here")
        return (value is None) == (name == "eq")
    if name == "ne":
        return bool(value is None or value != said)
    if name == "notIn":
        return value is None or value not in said
    return value is not None and bool(_PLAIN[name](value, said))


_PLAIN: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, said: value == said,
    "gt": lambda value, said: value > said,
    "gte": lambda value, said: value >= said,
    "lt": lambda value, said: value < said,
    "lte": lambda value, said: value <= said,
    "in": lambda value, said: value in said,
    "contains": lambda value, said: said in value,
    "startsWith": lambda value, said: value.startswith(said),
}


def attribute(document: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """One AttributeFilter holds for a JSON object."""
    value = document.get(given["key"])
    text = value if isinstance(value, str) else None
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    day = text[:10] if text and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) else None
    days = {name: said.isoformat() if isinstance(said, date) else said for name, said in (given.get("date") or {}).items()}
    return (
        (given.get("string") is None or operators(text, given["string"]))
        and (given.get("number") is None or operators(number, given["number"]))
        and (given.get("boolean") is None or value is given["boolean"])
        and operators(day, days)
    )


def attributes(document: Mapping[str, Any], given: Sequence[Mapping[str, Any]]) -> bool:
    return all(attribute(document, each) for each in given)


class Predicates:
    """Says whether a filter input holds for an object."""

    def __init__(self, interpreter: Any) -> None:
        self.i = interpreter

    def holds(self, run: Any, type_name: str, given: Mapping[str, Any], item: Any) -> bool:
        """All of the fields that were given hold."""
        return all(self._field(run, type_name, name, value, item) for name, value in given.items())

    def _field(self, run: Any, type_name: str, name: str, value: Any, item: Any) -> bool:
        source, _ = self.i.source_of(type_name, name)
        if value is None:
            return True
        if isinstance(source, sources.CombineSource):
            parts = [self.holds(run, type_name, each, item) for each in value]
            return all(parts) if source.how == "and" else any(parts) if source.how == "or" else not any(parts)
        if isinstance(source, sources.OperatorSource):
            values, _ = run.all_values(source, self.i.rows_of(item.type_name).table)
            return operators(values[item.key], value)
        check = getattr(self, f"_{type_name}_{name}")
        return bool(check(run, item.values, value))

    # ---- users

    def _UserFilter_ids(self, run: Any, user: Any, ids: Any) -> bool:
        return user["id"] in [node_key("User", each) for each in ids]

    def _UserFilter_gender(self, run: Any, user: Any, genders: Any) -> bool:
        return user["gender"] in genders

    def _UserFilter_birthdayWithinDays(self, run: Any, user: Any, days: int) -> bool:
        born: date | None = user["birthday"]
        if born is None:
            return False
        for number in range(min(max(days, 0), 366) + 1):
            day = run.moment.today + timedelta(days=number)
            kept = (2, 28) if (born.month, born.day) == (2, 29) and not calendar.isleap(day.year) else (born.month, born.day)
            if (day.month, day.day) == kept:
                return True
        return False

    def _UserFilter_attributes(self, run: Any, user: Any, given: Any) -> bool:
        return attributes(user["attributes"], given)

    def _UserFilter_channel(self, run: Any, user: Any, keys: Any) -> bool:
        known = self.i.table(run.tx, channels)
        rows = self.i.table(run.tx, identities).values()
        return any(row["user_id"] == user["id"] and known[row["channel_id"]]["key"] in keys for row in rows)

    def _UserFilter_acquisitionChannel(self, run: Any, user: Any, keys: Any) -> bool:
        through = self.i.table(run.tx, channels).get(user["acquisition_channel_id"])
        return through is not None and through["key"] in keys

    def _UserFilter_tag(self, run: Any, user: Any, given: Any) -> bool:
        known = self.i.table(run.tx, tags)
        rows = self.i.table(run.tx, user_tags).values()
        mine = [
            row
            for row in rows
            if row["user_id"] == user["id"] and (row["expires_at"] is None or row["expires_at"] > run.moment.now)
        ]
        have = {known[row["tag_id"]]["key"] for row in mine}
        wanted = set(given["keys"])
        mode = given.get("mode")
        return wanted <= have if mode == "ALL" else not wanted & have if mode == "NONE" else bool(wanted & have)

    def _UserFilter_event(self, run: Any, user: Any, given: Any) -> bool:
        mine = [event for event in self.i.table(run.tx, events).values() if event["user_id"] == user["id"]]
        said = {name: value for name, value in given.items() if value is not None}
        if "type" in said:
            mine = [event for event in mine if event["type"] in said["type"]]
        if "withinDays" in said:
            since = run.moment.today - timedelta(days=min(max(said["withinDays"], 0), 100_000))
            mine = [event for event in mine if event["business_date"] > since]
        if "since" in said:
            mine = [event for event in mine if event["occurred_at"] >= said["since"]]
        if "until" in said:
            mine = [event for event in mine if event["occurred_at"] < said["until"]]
        if "properties" in said:
            mine = [event for event in mine if attributes(event["properties"], said["properties"])]
        amount = sum(event["amount_minor"] for event in mine if event["currency"] == run.moment.currency)
        latest = max((event["occurred_at"] for event in mine), default=None)
        return (
            (operators(len(mine), said["count"]) if said.get("count") else bool(mine))
            and operators(latest, said.get("latest") or {})
            and operators(amount, said.get("amount") or {})
        )

    # ---- events

    def _EventFilter_type(self, run: Any, event: Any, types: Any) -> bool:
        return event["type"] in types

    def _EventFilter_user(self, run: Any, event: Any, user: Any) -> bool:
        return bool(event["user_id"] == node_key("User", user))

    def _EventFilter_channel(self, run: Any, event: Any, keys: Any) -> bool:
        known = self.i.table(run.tx, channels)
        here = known.get(event["channel_id"])
        above = known.get(here["parent_id"]) if here else None
        return any(each is not None and each["key"] in keys for each in (here, above))

    def _EventFilter_source(self, run: Any, event: Any, names: Any) -> bool:
        return event["source"] in names

    def _EventFilter_externalId(self, run: Any, event: Any, key: Any) -> bool:
        return bool(event["external_id"] == key)

    def _EventFilter_late(self, run: Any, event: Any, late: Any) -> bool:
        return event["late"] is late

    def _EventFilter_properties(self, run: Any, event: Any, given: Any) -> bool:
        return attributes(event["properties"], given)

    # ---- tags, channels, imports, the plugin

    def _TagFilter_search(self, run: Any, tag: Any, text: str) -> bool:
        return text in tag["name"] or text in tag["key"]

    def _TagFilter_group(self, run: Any, tag: Any, keys: Any) -> bool:
        group = self.i.table(run.tx, tag_groups).get(tag["group_id"])
        return group is not None and group["key"] in keys

    def _TagFilter_kind(self, run: Any, tag: Any, kinds: Any) -> bool:
        return tag["kind"] in kinds

    def _TagFilter_archived(self, run: Any, tag: Any, archived: Any) -> bool:
        return tag["archived"] is archived

    def _UserTagFilter_group(self, run: Any, tagged: Any, keys: Any) -> bool:
        return self._TagFilter_group(run, self.i.table(run.tx, tags)[tagged["tag_id"]], keys)

    def _UserTagFilter_kind(self, run: Any, tagged: Any, kinds: Any) -> bool:
        return self.i.table(run.tx, tags)[tagged["tag_id"]]["kind"] in kinds

    def _UserTagFilter_source(self, run: Any, tagged: Any, names: Any) -> bool:
        return tagged["source"] in names

    _ChannelFilter_search = _TagFilter_search
    _ChannelFilter_kind = _TagFilter_kind

    def _ChannelFilter_parent(self, run: Any, channel: Any, keys: Any) -> bool:
        above = self.i.table(run.tx, channels).get(channel["parent_id"])
        return above is not None and above["key"] in keys

    def _ChannelFilter_role(self, run: Any, channel: Any, role: Any) -> bool:
        return bool(channel["role"] == role)

    def _ChannelFilter_enabled(self, run: Any, channel: Any, enabled: Any) -> bool:
        return channel["enabled"] is enabled

    def _ImportFilter_kind(self, run: Any, each: Any, kind: Any) -> bool:
        return bool(each["kind"] == kind)

    def _ImportFilter_state(self, run: Any, each: Any, states: Any) -> bool:
        cut_off = each["state"] == "RUNNING" and (each["alive_until"] or each["started_at"]) < run.moment.now
        return ("INTERRUPTED" if cut_off else each["state"]) in states

    def _NoteFilter_moods(self, run: Any, note: Any, moods: Any) -> bool:
        return note["mood"] in moods

    def _NoteFilter_pinned(self, run: Any, note: Any, pinned: Any) -> bool:
        return note["pinned"] is pinned


def node_key(type_name: str, said: str) -> uuid.UUID:
    kind, _, key = said.rpartition("_")
    if kind != type_name or len(key) != 32:
        raise ScrmError("INVALID_ID", said)
    try:
        return uuid.UUID(hex=key)
    except ValueError:
        raise ScrmError("INVALID_ID", said) from None
