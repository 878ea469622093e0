"""What becomes of the plugin's own events: a run is asked for, or due; the rules are others."""

from __future__ import annotations

from collections.abc import Sequence

from scrm.api import Handler, HandlerTx, LogEvent

from .events import DUE, REQUESTED
from .rules import RfmRules
from .runs import ask, compute
from .words import keep_words

NAME = "rfm"
CONFIGURED = "plugin.configured"


def follow(tx: HandlerTx, batch: Sequence[LogEvent], rules: RfmRules) -> None:
    """Apply each event in turn."""
    for event in batch:
        if event.type == REQUESTED:
            ask(tx, event, rules)
        elif event.type == DUE:
            compute(tx, event, rules)
        elif event.properties.get("plugin") == NAME:
            keep_words(tx, rules)


handler = Handler((DUE, REQUESTED, CONFIGURED), follow)
