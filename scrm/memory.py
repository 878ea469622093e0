"""The memory of a process that lives long."""

from __future__ import annotations

import gc


def settle() -> None:
    """Call when a server, a worker or an import has started: what lives until the end is not looked at again by the collector.

    Young objects are looked at less often, for a batch of events or the rows of an answer are many and live shortly.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
