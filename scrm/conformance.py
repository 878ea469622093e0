"""The checks on what plugins declare, one plugin at a time and all together; nothing of a plugin runs here.

The loader, `scrm plugins check`, the tests and partners use the same ones.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from croniter import croniter
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from scrm import hookspecs
from scrm.events.consumers import EVERY
from scrm.plugin import PROJECT, Contribution, Decision, Handler, Job, Route, Rules, Wiring
from scrm.shapes import passed_over, payload_problems, shape_problems

NAME = re.compile(r"[a-z][a-z0-9_]*")
EVENT_TYPE = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
SCOPE = re.compile(r"[a-z][a-z0-9_]*:(read|write)")
WITH_TABLES = ("merge", "unmerge", "erase", "export")
PLAIN = ("contribute", *WITH_TABLES, "count")
"""Hooks that are called without waiting for what they return."""

CORE = "core"
TAKEN = (CORE, "alembic")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about a plugin: an error keeps it from loading, a warning does not."""

    plugin: str
    level: Literal["error", "warning"]
    text: str


@dataclass(frozen=True, slots=True)
class CoreNames:
    """What the core has taken: names that a plugin may not take again."""

    tables: frozenset[str] = frozenset()
    event_types: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Each with its properties about a person."""
    scopes: frozenset[str] = frozenset()
    indicators: frozenset[str] = frozenset()
    commands: frozenset[str] = frozenset()


def check_hooks(name: str, module: Any, offering: Iterable[Any] = ()) -> list[str]:
    """What is wrong with a plugin's hooks: missing, misspelt, unmarked, or with other arguments than the host gives.

    `offering` are modules of other plugins whose hooks this one may implement.
    """
    specs = {hook: function for each in (hookspecs, *offering, module) for hook, function in _marked(each, "spec")}
    problems: list[str] = []
    for attribute, function in _marked(module, "impl"):
        options = getattr(function, f"{PROJECT}_impl")
        hook = options.get("specname") or attribute
        if hook in specs:
            problems += _hook_problems(name, hook, function, specs[hook], options)
        elif not options.get("optionalhook"):
            near = difflib.get_close_matches(hook, specs, 1)
            way_out = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(specs))}"
            problems.append(f"hook {hook} of {name} is unknown; {way_out}")
    for hook in core_hooks():
        function = getattr(module, hook, None)
        if inspect.isroutine(function) and not hasattr(function, f"{PROJECT}_impl"):
            problems.append(f"{name}.{hook} is not marked as a hook; put @hookimpl above it")
    if not has_hook(module, "contribute"):
        problems.append(f"{name} has no hook contribute; write `@hookimpl def contribute() -> Contribution`")
    return problems


def _marked(module: Any, mark: str) -> Iterator[tuple[str, Any]]:
    for attribute in dir(module):
        thing = getattr(module, attribute, None)
        if inspect.isroutine(thing) and hasattr(thing, f"{PROJECT}_{mark}"):
            yield attribute, thing


def _hook_problems(name: str, hook: str, function: Any, spec: Any, options: Mapping[str, Any]) -> Iterator[str]:
    known = list(inspect.signature(spec).parameters)
    takes = f"takes {', '.join(known) or 'nothing'}, or fewer of them"
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            yield f"hook {hook} of {name} has the argument {parameter}; it {takes}, by name"
        elif parameter.name not in known and parameter.default is parameter.empty:
            yield f"hook {hook} of {name} has the argument {parameter.name}, which it is not given; it {takes}"
    if options.get("wrapper") or options.get("hookwrapper"):
        yield f"hook {hook} of {name} is a wrapper, and hooks are called alone; take wrapper=True away"
    if hook in PLAIN and _is_async(function):
        yield f"hook {hook} of {name} must be a plain function, not {_kind(function)}"


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def core_hooks() -> list[str]:
    """The names of the host's hooks."""
    return [name for name, value in vars(hookspecs).items() if hasattr(value, f"{PROJECT}_spec")]


def has_hook(module: object, hook: str) -> bool:
    """Whether a plugin implements a hook."""
    return hasattr(getattr(module, hook, None), f"{PROJECT}_impl")


@dataclass
class _Report:
    contribution: Contribution
    findings: list[Finding] = field(default_factory=list)

    def error(self, text: str) -> None:
        self.findings.append(Finding(self.contribution.name, "error", text))

    def warn(self, text: str) -> None:
        self.findings.append(Finding(self.contribution.name, "warning", text))


def check_contribution(contribution: Contribution, module: object) -> list[Finding]:
    """What is wrong with one plugin, looked at alone."""
    report = _Report(contribution)
    for problem in shape_problems(contribution):
        report.error(problem)
    if report.findings:
        return report.findings
    _check_names(report)
    _check_tables(report, module)
    _check_settings(report)
    _check_events(report)
    _check_callbacks(report)
    _check_repeats(report)
    return report.findings


def _check_names(report: _Report) -> None:
    it = report.contribution
    if not NAME.fullmatch(it.name) or it.name in TAKEN:
        report.error(f"plugin name {it.name!r} cannot be used; take lower case letters, digits and _, and not core or alembic")
    try:
        Version(it.version)
    except InvalidVersion:
        report.error(f"version {it.version!r} of {it.name} is no version; write one such as 1.0.0")
    try:
        SpecifierSet(it.scrm)
    except InvalidSpecifier:
        report.error(f"{it.name} asks for scrm {it.scrm!r}, which is no version range; write one such as >=0.1,<1")
    for other in (*it.requires, *it.after):
        if other == it.name:
            report.error(f"{it.name} names itself in requires or after; take it out")
    for scope in it.scopes:
        if not SCOPE.fullmatch(scope.name):
            report.error(f"scope {scope.name!r} of {it.name} is not noun:read or noun:write")


def _check_tables(report: _Report, module: object) -> None:
    it = report.contribution
    tables = dict(it.tables.tables) if it.tables is not None else {}
    for name, table in tables.items():
        if not name.startswith(f"{it.name}_"):
            report.error(f"table {name} of {it.name} must be named {it.name}_…")
        for key in table.foreign_keys:
            target = key.target_fullname.rpartition(".")[0]
            if target not in tables:
                report.error(
                    f"{name}.{key.parent.name} of {it.name} is a foreign key to {target}, which is not {it.name}'s; "
                    "keep the id without a foreign key"
                )
    if tables and it.migrations is None:
        report.error(f"{it.name} has tables and no migrations; give its Contribution a migrations directory")
    if it.migrations is not None and not it.migrations.is_dir():
        report.error(f"migrations directory {it.migrations} of {it.name} does not exist")
    elif tables and it.migrations is not None and not any(it.migrations.glob("*.py")):
        report.warn(
            f"{it.name} has tables, and {it.migrations} has no migration for them; "
            f"write one with scrm db revision {it.name} --message TEXT"
        )
    for hook in WITH_TABLES if tables else ():
        if not has_hook(module, hook):
            report.error(f"{it.name} has tables and no hook {hook}; write one, be it empty")


def _check_settings(report: _Report) -> None:
    it = report.contribution
    for what, model, kind in (("rules", it.rules, Rules), ("wiring", it.wiring, Wiring)):
        if not (isinstance(model, type) and issubclass(model, kind)):
            report.error(f"{what} of {it.name} must be a subclass of scrm.api.{kind.__name__}")
            return
    for name in sorted(set(it.rules.model_fields) & set(it.wiring.model_fields)):
        report.error(f"setting {name} is in both rules and wiring of {it.name}; keep one")
    for name, info in it.rules.model_fields.items():
        if "Secret" in str(info.annotation):
            report.error(f"rules.{name} of {it.name} is a secret, and rules are kept in the log; move it to wiring")
    if "enabled" in (set(it.rules.model_fields) | set(it.wiring.model_fields)):
        report.error(f"setting enabled of {it.name} is the host's; choose another name")


def _check_events(report: _Report) -> None:
    it = report.contribution
    for kind in it.event_types:
        if not EVENT_TYPE.fullmatch(kind.name):
            report.error(f"event type {kind.name!r} of {it.name} is not noun.verb")
        problems = list(payload_problems(kind.payload))
        for problem in problems:
            report.error(f"event type {kind.name} of {it.name}: {problem}")
        for word in sorted(passed_over(kind.payload)) if not problems else ():
            report.warn(f"event type {kind.name} of {it.name}: nothing is checked by {word} in its payload")
    handled: dict[str, Handler] = {}
    for handler in it.handlers:
        if not (handler.types or handler.optional):
            report.error(f"handler {_called(handler.handle)} of {it.name} reads no event type; name some or take it out")
        for name in (*handler.types, *handler.optional):
            if handled.setdefault(name, handler) is not handler:
                report.error(f"event type {name} is read by two handlers of {it.name}; join them")
    for decision in it.decisions:
        if not EVENT_TYPE.fullmatch(decision.event_type):
            report.error(f"decision {decision.name} of {it.name} records {decision.event_type!r}, which is not noun.verb")
        elif decision.event_type not in handled:
            report.error(
                f"decision {decision.name} of {it.name} records {decision.event_type}, which its handlers do not read; add one"
            )


def _check_callbacks(report: _Report) -> None:
    it = report.contribution
    plain: list[tuple[str, Callable[..., Any], int]] = [
        *((f"handler {_called(one.handle)}", one.handle, 3) for one in it.handlers),
        *((f"decision {one.name}", one.decide, 4) for one in it.decisions),
        *((f"job {one.name}", one.run, 3) for one in it.jobs),
        *((f"indicator {one.key}", one.series, 4) for one in it.indicators),
    ]
    for what, function, count in plain:
        inner = function.func if isinstance(function, functools.partial) else function
        if not inspect.isfunction(inner) or _is_async(inner):
            report.error(f"{what} of {it.name} must be a plain function, not {_kind(function)}")
        elif not _takes(function, count):
            said = f"{_called(function)}{inspect.signature(function)}"
            report.error(f"{what} of {it.name} is {said}; it is called with {count} arguments")
    for deliverer in it.deliverers:
        if not inspect.iscoroutinefunction(deliverer.deliver) or not _takes(deliverer.deliver, 2):
            report.error(f"deliverer {deliverer.kind} of {it.name} must be an async function of a payload and the wiring")
    for job in it.jobs:
        _check_schedule(report, job)
    for route in it.routes:
        _check_route(report, route)
    for command in it.commands:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", command.name):
            report.error(f"command {command.name!r} of {it.name} cannot be typed; take lower case letters, digits and -")


def _check_schedule(report: _Report, job: Job) -> None:
    fits = job.every > timedelta(0) if isinstance(job.every, timedelta) else croniter.is_valid(job.every)
    if not fits:
        report.error(f"job {job.name} of {report.contribution.name} runs every {job.every!r}; give a duration or a cron line")


def _check_route(report: _Report, route: Route) -> None:
    owner = report.contribution.name
    if not route.path.startswith("/"):
        report.error(f"route {route.path!r} of {owner} must begin with /")
    if not inspect.iscoroutinefunction(route.endpoint):
        report.error(f"route {route.path} of {owner} must be an async function, not {_kind(route.endpoint)}")
    elif not (_takes(route.endpoint, 1) or _takes(route.endpoint, 2)):
        report.error(f"route {route.path} of {owner} must take the request, and may take the plugin's context")
    if route.public == (route.scope is not None):
        report.error(f"route {route.path} of {owner} must name a scope or be public, one of the two")


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


def _called(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _kind(thing: object) -> str:
    if inspect.iscoroutinefunction(thing) or inspect.isasyncgenfunction(thing):
        return "an async function"
    if inspect.isgeneratorfunction(thing):
        return "a generator"
    return "a method" if inspect.ismethod(thing) else f"a {type(thing).__name__}"


def _names(it: Contribution) -> Iterator[tuple[str, str]]:
    """Names of which a plugin may have one each: (kind, name)."""
    yield from (("event type", kind.name) for kind in it.event_types)
    yield from (("scope", scope.name) for scope in it.scopes)
    yield from (("decision", decision.name) for decision in it.decisions)
    yield from (("indicator", indicator.key) for indicator in it.indicators)
    yield from (("job", job.name) for job in it.jobs)
    yield from (("command", command.name) for command in it.commands)
    yield from (("deliverer", deliverer.kind) for deliverer in it.deliverers)
    yield from (("route", f"{method} {route.path}") for route in it.routes for method in route.methods)


def _check_repeats(report: _Report) -> None:
    seen: set[tuple[str, str]] = set()
    for kind, name in _names(report.contribution):
        if (kind, name) in seen:
            report.error(f"{kind} {name} is declared twice by {report.contribution.name}; keep one")
        seen.add((kind, name))


_SHARED = ("event type", "scope", "decision", "indicator")


def check_together(contributions: Sequence[Contribution], core: CoreNames) -> list[Finding]:
    """What collides between plugins, or between one and the core, naming both; and events that nobody records."""
    findings: list[Finding] = []
    taken: dict[tuple[str, str], str] = {
        **{("table", name): CORE for name in core.tables},
        **{("event type", name): CORE for name in core.event_types},
        **{("scope", name): CORE for name in core.scopes},
        **{("indicator", name): CORE for name in core.indicators},
    }
    for it in contributions:
        tables = [("table", name) for name in (it.tables.tables if it.tables is not None else ())]
        for kind, name in [*tables, *(pair for pair in _names(it) if pair[0] in _SHARED)]:
            owner = taken.setdefault((kind, name), it.name)
            if owner != it.name:
                findings.append(_collision(it.name, f"{kind} {name} is defined by {owner} and by {it.name}", owner))
        shadowed = sorted(name for name in core.tables if name.startswith(f"{it.name}_"))
        if shadowed:
            text = f"core's table {shadowed[0]} has the prefix of {it.name}; rename the plugin"
            findings.append(Finding(it.name, "error", text))
        for other in contributions:
            for _, name in tables:
                if other.name.startswith(f"{it.name}_") and name.startswith(f"{other.name}_"):
                    findings.append(_collision(it.name, f"table {name} of {it.name} has the prefix of {other.name}", other.name))
        if it.name in core.commands and it.commands:
            findings.append(Finding(it.name, "error", f"commands of {it.name} would hide scrm {it.name}; rename the plugin"))
    return [*findings, *_unknown_types(contributions, core.event_types)]


def _collision(plugin: str, text: str, owner: str) -> Finding:
    return Finding(plugin, "error", f"{text}; {f'rename it in {plugin}' if owner == CORE else 'disable one'}")


def _unknown_types(contributions: Sequence[Contribution], known_to_core: Collection[str]) -> Iterator[Finding]:
    known: Mapping[str, object] = dict.fromkeys([*known_to_core, *(kind.name for it in contributions for kind in it.event_types)])
    for it in contributions:
        read: list[Handler | Decision] = [*it.handlers, *it.decisions]
        names = {name for one in read for name in (one.types if isinstance(one, Handler) else (one.event_type,))}
        for name in sorted(names - {*known, EVERY}):
            text = f"event type {name}, which {it.name} uses, is registered by nobody; check its spelling"
            yield Finding(it.name, "warning", text)
