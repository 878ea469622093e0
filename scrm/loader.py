"""The plugin host: discover, choose, check, order, register. What comes out is a `PluginSet`; nothing else imports a plugin."""

from __future__ import annotations

import difflib
import heapq
import inspect
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from scrm import __version__
from scrm.auth import CORE_SCOPES
from scrm.bounded import new_threads, within
from scrm.config import PluginSection, Settings, plugin_settings
from scrm.conformance import CoreNames, Finding, check_contribution, check_hooks, check_together, has_hook
from scrm.db import Tx, dumps, metadata
from scrm.errors import StartupError, name_of, words_of
from scrm.events.log import core_event_types
from scrm.events.models import consumers
from scrm.indicators.service import core_indicators
from scrm.migrate import OwnerStatus, pending
from scrm.plugin import Contribution
from scrm.plugin_set import LoadState, Plugin, PluginSet, PluginStatus, bind_hooks
from scrm.presence import running
from scrm.unpacked import GROUP

__all__ = [
    "GROUP",
    "LoadState",
    "Plugin",
    "PluginSet",
    "PluginStatus",
    "core_names",
    "live_statuses",
    "load_plugins",
    "missing_plugins",
    "refuse",
    "with_migrations",
]

SAFE_MODE = "not imported, because this is the safe mode"
_SLOW = 10.0
"""Seconds of loading after which a plugin is said to be slow."""

OnError = Literal["fail", "skip"]


def core_names(commands: Iterable[str] = ()) -> CoreNames:
    """What the core has taken."""
    return CoreNames(
        tables=frozenset(metadata.tables),
        event_types={kind.name: kind.personal for kind in core_event_types},
        scopes=frozenset(scope.name for scope in CORE_SCOPES),
        indicators=frozenset(each.key for each in core_indicators("CNY", ZoneInfo("UTC"))),
        commands=frozenset(commands),
    )


@dataclass
class _Candidate:
    """A plugin on its way: where it comes from, and how far it came."""

    name: str
    import_: Callable[[], Any] | None
    package: str | None = None
    version: str | None = None
    section: PluginSection = field(default_factory=PluginSection)
    module: Any = None
    contribution: Contribution | None = None
    plugin: Plugin | None = None
    wanted: frozenset[tuple[str, str]] = frozenset()
    reads: Mapping[str, frozenset[str]] = field(default_factory=dict)
    state: LoadState = LoadState.DISCOVERED
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def stop(self, state: LoadState, *problems: str) -> None:
        """Go no further."""
        if self.state in (LoadState.DISCOVERED, state):
            self.state = state
            self.problems += problems

    @property
    def going(self) -> bool:
        return self.state is LoadState.DISCOVERED

    def status(self, at: datetime) -> PluginStatus:
        reason = "; ".join(self.problems) or None
        warnings, problems = tuple(self.warnings), tuple(self.problems)
        return PluginStatus(self.name, self.state, reason, at, self.version, self.package, warnings, problems)

    def ask(self, seconds: float, call: Callable[[], None], what: str) -> None:
        """Let the plugin's code run; whatever it does is its own failure, even that it does not return."""
        known, started = set(threading.enumerate()), time.monotonic()
        try:
            within(seconds, call)
        except TimeoutError:
            way_out = "mend it, give it longer with plugin_start_seconds, or take its enabled = true out"
            self.stop(LoadState.LOAD_ERROR, f"{self.name} {what}: it has not returned after {seconds:g} s; {way_out}")
        except BaseException as error:
            self.stop(LoadState.LOAD_ERROR, f"{self.name} {what}: {_said(error)}")
        for thread in new_threads(known):
            self.warnings.append(f"{self.name} started the thread {thread} while it was loaded; start it in the hook lifespan")
        if (took := time.monotonic() - started) > _SLOW:
            self.warnings.append(f"{self.name} took {took:.1f} s to load; every start and every command waits for it")


def load_plugins(
    settings: Settings,
    extra: Mapping[str, Any] | None = None,
    *,
    unpacked: Mapping[str, Callable[[], Any]] | None = None,
    on_error: OnError | None = None,
    at: datetime | None = None,
    core: CoreNames | None = None,
    safe: bool = False,
) -> PluginSet:
    """Load the plugins that the settings enable; only these are imported.

    `extra` are plugins by name that no package offers (a module, or an object with hooks): they are enabled unless the settings
    say otherwise. `unpacked` are plugins by name that are not installed, and what imports them. `on_error` overrides the setting
    `on_plugin_error`. In the `safe` mode none is imported.

    Raises: StartupError with every problem, unless plugins that fail are to be skipped.
    """
    found = _discover(settings, extra or {}, unpacked or {})
    if safe:
        return PluginSet((), [_not_imported(found[name].status(at or datetime.now(UTC))) for name in sorted(found)])
    seconds = settings.plugin_start_seconds
    for candidate in found.values():
        if candidate.going:
            candidate.ask(seconds, partial(_import, candidate), "cannot be imported")
    for candidate in found.values():
        if candidate.going:
            candidate.ask(seconds, partial(_check_alone, candidate, found, settings), "cannot be checked")
    _check_needs(found)
    _check_together(found, core or core_names())
    _check_needs(found)
    _check_rules(found, core or core_names())
    _check_needs(found)
    ordered = _order([candidate for candidate in found.values() if candidate.going])
    for candidate in ordered:
        candidate.state = LoadState.ACTIVE
    now = at or datetime.now(UTC)
    active = [candidate.plugin for candidate in ordered if candidate.plugin is not None]
    loaded = PluginSet(active, [found[name].status(now) for name in sorted(found)])
    if (on_error or settings.on_plugin_error) == "fail":
        refuse([candidate.status(now) for candidate in found.values()])
    return loaded


def contribution_of(name: str, import_: Callable[[], Any], seconds: float) -> Contribution:
    """What a plugin brings, whatever the settings say of it.

    Raises: StartupError when it cannot be imported, or brings nothing.
    """
    candidate = _Candidate(name, import_)
    candidate.ask(seconds, partial(_import, candidate), "cannot be imported")
    if candidate.contribution is None:
        raise StartupError(candidate.problems)
    return candidate.contribution


def installed_plugins() -> dict[str, Callable[[], Any]]:
    """The plugins that installed packages offer: by name, what imports each."""
    return {point.name: point.load for point in entry_points(group=GROUP)}


def refuse(statuses: Sequence[PluginStatus]) -> None:
    """Stop where a plugin that is enabled cannot run.

    Raises: StartupError with every problem of every such plugin.
    """
    names = {status.name for status in statuses}
    lines: list[str] = []
    for status in statuses:
        if status.state in (LoadState.MIGRATION_REQUIRED, LoadState.MIGRATION_ERROR):
            lines += [f"plugin {status.name} is not ready: {problem}" for problem in status.problems]
        elif status.state in (LoadState.LOAD_ERROR, LoadState.INCOMPATIBLE):
            lines += [f"plugin {line}" if line.split(" ")[0] in names else line for line in status.problems]
    if lines:
        raise StartupError(list(dict.fromkeys(lines)))


def _not_imported(status: PluginStatus) -> PluginStatus:
    return status if status.state is LoadState.DISABLED else replace(status, state=LoadState.DISCOVERED, reason=SAFE_MODE)


def missing_plugins(settings: Settings) -> list[str]:
    """The plugins that are enabled though no installed package offers them."""
    offered = {point.name for point in entry_points(group=GROUP)}
    return sorted(name for name, section in settings.plugins.items() if section.enabled and name not in offered)


def with_migrations(plugins: PluginSet, statuses: Sequence[OwnerStatus], at: datetime) -> PluginSet:
    """The same with only those active whose tables are as their migrations say, and with what these require."""
    out: dict[str, tuple[LoadState, list[str]]] = {}
    by_name = {status.owner: status for status in statuses}
    for plugin in plugins:
        status = by_name.get(plugin.name)
        if status is not None and status.problem is not None:
            out[plugin.name] = (LoadState.MIGRATION_ERROR, [status.problem])
        elif status is not None and status.pending:
            out[plugin.name] = (LoadState.MIGRATION_REQUIRED, [f"{pending(status.pending)}; run scrm db upgrade"])
        elif status is not None and status.head is None and plugin.contribution.tables:
            written = f"it has tables and no migration; write one with scrm db revision {plugin.name} --message TEXT"
            out[plugin.name] = (LoadState.MIGRATION_REQUIRED, [written])
    return plugins.without(out, at)


def live_statuses(tx: Tx, plugins: PluginSet, at: datetime) -> list[PluginStatus]:
    """The states as the database knows them now: an active plugin may be degraded or paused, and one that is not active may
    still run in processes that were started when it was."""
    rows = {row.plugin: row for row in tx.rows(sa.select(consumers).where(consumers.c.state != "ACTIVE"))}
    there = running(tx, at)
    found = []
    for status in plugins.statuses:
        row = rows.get(status.name)
        if status.state is not LoadState.ACTIVE:
            places = tuple(process.place for process in there if status.name in process.plugins)
            found.append(replace(status, running_in=places))
        elif row is not None:
            found.append(replace(status, state=LoadState(row.state.lower()), reason=row.reason, since=row.since))
        else:
            found.append(status)
    return found


def _discover(settings: Settings, extra: Mapping[str, Any], unpacked: Mapping[str, Callable[[], Any]]) -> dict[str, _Candidate]:
    found: dict[str, _Candidate] = {}
    offers: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        offers.setdefault(point.name, []).append(point)
    for name, points in offers.items():
        packages = sorted({_package(point) for point in points})
        distribution = points[0].dist
        found[name] = _Candidate(name, points[0].load, packages[0], distribution.version if distribution else None)
        if len(packages) > 1:
            found[name].stop(LoadState.LOAD_ERROR, f"{name} is offered by {' and by '.join(packages)}; uninstall one")
    for name, load in unpacked.items():
        found[name] = _Candidate(name, load)
    for name, module in extra.items():
        found[name] = _Candidate(name, lambda module=module: module)  # type: ignore[misc]
    for name, candidate in found.items():
        candidate.section = settings.plugins.get(name, PluginSection(enabled=name in extra))
        if not candidate.section.enabled:
            candidate.state, candidate.problems = LoadState.DISABLED, []
    for name, section in settings.plugins.items():
        if section.enabled and name not in found:
            found[name] = _Candidate(name, None)
            near = difflib.get_close_matches(name, offers, 1)
            way_out = f"did you mean {near[0]}?" if near else "install its package or take its section out"
            found[name].stop(LoadState.LOAD_ERROR, f"{name} is enabled, but no installed package offers it; {way_out}")
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _import(candidate: _Candidate) -> None:
    """Import a plugin and ask what it brings."""
    assert candidate.import_ is not None
    candidate.module = candidate.import_()
    if not has_hook(candidate.module, "contribute"):
        candidate.stop(LoadState.LOAD_ERROR, *check_hooks(candidate.name, candidate.module))
        return
    said = candidate.module.contribute()
    if isinstance(said, Contribution):
        candidate.contribution, candidate.version = said, str(said.version)
        return
    if inspect.iscoroutine(said):
        said.close()
    problem = f"contribute() of {candidate.name} returned a {type(said).__name__}; return a Contribution"
    candidate.stop(LoadState.LOAD_ERROR, problem)


def _said(error: BaseException) -> str:
    """What somebody else's code raised, in one line, with the way out where there is one."""
    if type(error) is ModuleNotFoundError and error.name is not None:
        return f"{name_of(error)}: {words_of(error)}; install what brings {error.name} beside scrm"
    return f"{name_of(error)}: {words_of(error)}"


def _check_alone(candidate: _Candidate, found: Mapping[str, _Candidate], settings: Settings) -> None:
    it = candidate.contribution
    assert it is not None
    offering = [found[name].module for name in (*it.requires, *it.after) if name in found and found[name].module is not None]
    problems = check_hooks(candidate.name, candidate.module, offering)
    if it.name != candidate.name:
        problems.append(f"{candidate.name} calls itself {it.name!r} in its Contribution; use one name")
    findings = check_contribution(it, candidate.module)
    candidate.warnings += [finding.text for finding in findings if finding.level == "warning"]
    problems += [finding.text for finding in findings if finding.level == "error"]
    if problems:
        candidate.stop(LoadState.LOAD_ERROR, *problems)
        return
    if not SpecifierSet(it.scrm).contains(Version(__version__), prereleases=True):
        candidate.stop(LoadState.INCOMPATIBLE, f"{it.name} {it.version} needs scrm {it.scrm}; this is {__version__}")
        return
    try:
        rules, wiring = plugin_settings(candidate.name, candidate.section, it.rules, it.wiring, settings.house)
    except StartupError as error:
        candidate.stop(LoadState.LOAD_ERROR, *error.problems)
        return
    try:
        dumps(rules.model_dump(mode="json"))
    except Exception as error:
        candidate.stop(LoadState.LOAD_ERROR, f"the rules of {it.name} cannot be kept in the log as JSON: {_said(error)}")
        return
    candidate.wanted = frozenset(
        [*(("event type", str(name)) for name in rules.event_types()), *(("indicator", str(key)) for key in rules.indicators())]
    )
    candidate.reads = {str(name): frozenset(map(str, keys)) for name, keys in (rules.reads() or {}).items()}
    today = datetime.now(settings.zone).date()
    candidate.warnings += [f"[plugins.{it.name}]: {said}" for said in rules.warnings(today)]
    candidate.plugin = Plugin(candidate.name, it, rules, wiring, bind_hooks(candidate.module))


def _check_needs(found: Mapping[str, _Candidate]) -> None:
    """Stop plugins whose required plugins do not run, and those that require them, and so on."""
    moved = True
    while moved:
        moved = False
        for candidate in found.values():
            for name in candidate.contribution.requires if candidate.going and candidate.contribution else ():
                other = found.get(name)
                if other is None or not other.going:
                    what = f"is {other.state.value}" if other is not None else "is not installed"
                    candidate.stop(LoadState.INCOMPATIBLE, f"{candidate.name} requires {name}, which {what}")
                    moved = True


def _check_rules(found: Mapping[str, _Candidate], core: CoreNames) -> None:
    """Stop plugins whose rules compute with events that nobody registers, or with indicators that nobody offers, and those whose
    events went with them, and so on, or look at what is personal; warn of event types in rules that nobody registers."""
    moved = True
    while moved:
        moved = False
        known, offered = _registered(found, core)
        for candidate in found.values():
            refused = list(_refused_rules(candidate, known, offered)) if candidate.going else []
            for state, words in refused:
                candidate.stop(state, words)
                moved = True
    for candidate in found.values():
        for name in sorted(set(candidate.reads) - set(known)) if candidate.going else ():
            words = f"the rules in [plugins.{candidate.name}] name the event type {name}, which nobody registers"
            candidate.warnings.append(f"{words}; is it spelt so?")


def _refused_rules(
    candidate: _Candidate, known: Mapping[str, Collection[str]], offered: Collection[str]
) -> Iterator[tuple[LoadState, str]]:
    there = {("event type", name) for name in known} | {("indicator", key) for key in offered}
    for kind, name in sorted(candidate.wanted - there):
        how = "registers" if kind == "event type" else "offers"
        words = f"{candidate.name} needs the {kind} {name} for its rules, and no enabled plugin {how} it"
        yield LoadState.INCOMPATIBLE, f"{words}; enable one that does, or change [plugins.{candidate.name}]"
    for name, keys in sorted(candidate.reads.items()):
        for key in sorted(keys.intersection(known.get(name, ()))):
            words = f"the rules in [plugins.{candidate.name}] look at {key} of {name}, which is personal"
            yield LoadState.LOAD_ERROR, f"{words}; take the condition out"


def _registered(found: Mapping[str, _Candidate], core: CoreNames) -> tuple[dict[str, Collection[str]], set[str]]:
    """Event types that are registered, each with its personal properties, and indicators that are offered."""
    going = [candidate.contribution for candidate in found.values() if candidate.going and candidate.contribution is not None]
    types = {**core.event_types, **{kind.name: kind.personal for one in going for kind in one.event_types}}
    return types, {*core.indicators, *(each.key for one in going for each in one.indicators)}


def _check_together(found: Mapping[str, _Candidate], core: CoreNames) -> None:
    going = [candidate for candidate in found.values() if candidate.going and candidate.contribution is not None]
    contributions = [candidate.contribution for candidate in sorted(going, key=lambda one: one.name)]
    for finding in check_together([one for one in contributions if one is not None], core):
        _note(found[finding.plugin], finding)
    for circle in _circles(going):
        for name in circle:
            way = " → ".join([*circle, circle[0]])
            found[name].stop(LoadState.INCOMPATIBLE, f"plugins that come after each other in a circle: {way}; break it")


def _note(candidate: _Candidate, finding: Finding) -> None:
    if finding.level == "error":
        candidate.stop(LoadState.LOAD_ERROR, finding.text)
    else:
        candidate.warnings.append(finding.text)


def _before(candidates: Sequence[_Candidate]) -> dict[str, set[str]]:
    names = {candidate.name for candidate in candidates}
    return {
        candidate.name: {*candidate.contribution.requires, *candidate.contribution.after} & names
        for candidate in candidates
        if candidate.contribution is not None
    }


def _circles(candidates: Sequence[_Candidate]) -> list[list[str]]:
    left = _before(candidates)
    circles: list[list[str]] = []
    while left:
        free = [name for name, before in left.items() if not before & left.keys()]
        for name in free:
            del left[name]
        if not free:
            walk = [min(left)]
            while (following := min(left[walk[-1]] & left.keys())) not in walk:
                walk.append(following)
            circles.append(walk[walk.index(following) :])
            for name in circles[-1]:
                del left[name]
    return circles


def _order(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """What others need first; where that leaves a choice, by name."""
    by_name = {candidate.name: candidate for candidate in candidates}
    waiting = _before(candidates)
    ready = [name for name, before in waiting.items() if not before]
    heapq.heapify(ready)
    ordered = []
    while ready:
        name = heapq.heappop(ready)
        ordered.append(by_name[name])
        for other, before in waiting.items():
            if name in before:
                before.discard(name)
                if not before:
                    heapq.heappush(ready, other)
    return ordered
