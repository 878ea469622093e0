"""Has an indicator that answers too few values, and one that tries to end the server.

Outcome: these series are null with PLUGIN_FIELD_FAILED; other indicators come out.
State: active
Check: no problems
"""

from scrm.api import Contribution, Indicator, IndicatorUnit, Ratio, hookimpl


def short(tx, periods, channel_id, as_of):
    return [Ratio(1)]


def loud(tx, periods, channel_id, as_of):
    raise SystemExit(0)


@hookimpl
def contribute():
    return Contribution(
        name="misindicating",
        version="1.0",
        indicators=[
            Indicator("misindicating_short", "Short", IndicatorUnit.COUNT, "Too few values.", short),
            Indicator("misindicating_loud", "Loud", IndicatorUnit.COUNT, "Raises.", loud),
        ],
    )
