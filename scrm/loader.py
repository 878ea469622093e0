"""The plugin host: discover, choose, check, order, register. What comes out is a `PluginSet`; nothing else imports a plugin."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from scrm import __version__
from scrm.auth import CORE_SCOPES
from scrm.config import PluginSection, Settings, plugin_settings
from scrm.conformance import CoreNames, Finding, check_contribution, check_hooks, check_together, has_hook
from scrm.db import Tx, metadata
from scrm.errors import StartupError
from scrm.events.log import core_event_types
from scrm.events.models import consumers
from scrm.indicators.service import core_indicators
from scrm.migrate import OwnerStatus
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
    "with_migrations",
]

OnError = Literal["fail", "skip"]


def core_names(commands: Iterable[str] = ()) -> CoreNames:
    """What the core has taken."""
    return CoreNames(
        tables=frozenset(metadata.tables),
        event_types=frozenset(kind.name for kind in core_event_types),
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
        return PluginStatus(self.name, self.state, reason, at, self.version, self.package, tuple(self.warnings))


def load_plugins(
    settings: Settings,
    extra: Mapping[str, Any] | None = None,
    *,
    unpacked: Mapping[str, Callable[[], Any]] | None = None,
    on_error: OnError | None = None,
    at: datetime | None = None,
    core: CoreNames | None = None,
) -> PluginSet:
    """Load the plugins that the settings enable; only these are imported.

    `extra` are plugins by name that no package offers (a module, or an object with hooks): they are enabled unless the settings
    say otherwise. `unpacked` are plugins by name that are not installed, and what imports them. `on_error` overrides the setting
    `on_plugin_error`.

    Raises: StartupError with every problem, unless plugins that fail are to be skipped.
    """
    found = _discover(settings, extra or {}, unpacked or {})
    for candidate in found.values():
        if candidate.going:
            _import(candidate)
    for candidate in found.values():
        if candidate.going:
            _check_alone(candidate, found, settings)
    _check_needs(found)
    _check_together(found, core or core_names())
    _check_needs(found)
    ordered = _order([candidate for candidate in found.values() if candidate.going])
    for candidate in ordered:
        candidate.state = LoadState.ACTIVE
    problems = [line for candidate in found.values() if candidate.state is not LoadState.DISABLED for line in candidate.problems]
    if problems and (on_error or settings.on_plugin_error) == "fail":
        raise StartupError([f"plugin {line}" if line.split(" ")[0] in found else line for line in dict.fromkeys(problems)])
    time = at or datetime.now(UTC)
    active = [candidate.plugin for candidate in ordered if candidate.plugin is not None]
    return PluginSet(active, [found[name].status(time) for name in sorted(found)])


def missing_plugins(settings: Settings) -> list[str]:
    """The plugins that are enabled though no installed package offers them."""
    offered = {point.name for point in entry_points(group=GROUP)}
    return sorted(name for name, section in settings.plugins.items() if section.enabled and name not in offered)


def with_migrations(plugins: PluginSet, statuses: Sequence[OwnerStatus], at: datetime) -> PluginSet:
    """The same with only those active whose tables are as their migrations say, and with what these require."""
    out: dict[str, tuple[LoadState, str]] = {}
    by_name = {status.owner: status for status in statuses}
    for plugin in plugins:
        status = by_name.get(plugin.name)
        if status is not None and status.problem is not None:
            out[plugin.name] = (LoadState.MIGRATION_ERROR, status.problem)
        elif status is not None and status.pending:
            out[plugin.name] = (LoadState.MIGRATION_REQUIRED, f"{status.pending} migrations are pending; run scrm db upgrade")
        elif status is not None and status.head is None and plugin.contribution.tables:
            written = f"it has tables and no migration; write one with scrm db revision {plugin.name} --message TEXT"
            out[plugin.name] = (LoadState.MIGRATION_REQUIRED, written)
        for other in plugin.contribution.requires:
            if other in out and plugin.name not in out:
                out[plugin.name] = (LoadState.INCOMPATIBLE, f"{plugin.name} requires {other}, which is {out[other][0]}")
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
    """Import a plugin and ask what it brings; whatever it raises is its own failure, even an attempt to exit."""
    assert candidate.import_ is not None
    try:
        candidate.module = candidate.import_()
        problems = check_hooks(candidate.name, candidate.module) if not _brings_hooks(candidate.module) else []
        if has_hook(candidate.module, "contribute"):
            said = candidate.module.contribute()
            if isinstance(said, Contribution):
                candidate.contribution, candidate.version = said, said.version
            else:
                problems.append(f"contribute() of {candidate.name} returned a {type(said).__name__}; return a Contribution")
        else:
            problems = problems or check_hooks(candidate.name, candidate.module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        problems = [f"{candidate.name} cannot be imported: {type(error).__name__}: {_first_line(error)}"]
    if problems:
        candidate.stop(LoadState.LOAD_ERROR, *problems)


def _brings_hooks(module: Any) -> bool:
    """Whether it says contribute(), and so may name plugins whose hooks it implements: these are checked when all are known."""
    return has_hook(module, "contribute")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


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
