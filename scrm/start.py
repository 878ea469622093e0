"""What can run on the database as it is: before the server and the worker start, and to show it to people."""

from __future__ import annotations

from scrm.app import fit_schema
from scrm.config import Settings
from scrm.conformance import CoreNames
from scrm.loader import load_plugins, refuse
from scrm.plugin_set import PluginSet
from scrm.provision import ready_plugins


async def start_plugins(settings: Settings, *, core: CoreNames | None = None, safe: bool = False) -> PluginSet:
    """The plugins that load, fit into one schema and have their tables; in the `safe` mode none, and none is imported.

    Raises: StartupError when the core's tables are not up to date, or, while `on_plugin_error` is fail, with every reason for
    which a plugin cannot run.
    """
    runnable = await runnable_plugins(settings, core=core, safe=safe)
    if settings.on_plugin_error == "fail":
        refuse(runnable.statuses)
    return runnable


async def runnable_plugins(settings: Settings, *, core: CoreNames | None = None, safe: bool = False) -> PluginSet:
    """The same, whatever `on_plugin_error` says: those that cannot run are left out with their reasons."""
    loaded = load_plugins(settings, on_error="skip", core=core, safe=safe)
    fitting, _ = fit_schema(settings, loaded)
    return await ready_plugins(settings, fitting, on_error="skip")
