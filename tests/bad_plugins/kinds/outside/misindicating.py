"""Has an indicator that answers too few values, one that tries to end the server, and one whose SQL fails.

Outcome: these series are null with PLUGIN_FIELD_FAILED; other indicators come out.
State: active
Check: indicator misindicating_short of misindicating does not answer one Ratio for each of 3 periods; let its series answer so; indicator misindicating_loud of misindicating fails: SystemExit: 0; mend its series; indicator misindicating_sql of misindicating fails: …
"""

import sqlalchemy as sa

from scrm.api import Contribution, Indicator, IndicatorUnit, Ratio, hookimpl


def short(tx, periods, channel_id, as_of):
    return [Ratio(1)]


def sql(tx, periods, channel_id, as_of):
    return [Ratio(tx.scalar(sa.text("select n from misindicating_nothing"))) for _ in periods]


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
            Indicator("misindicating_sql", "SQL", IndicatorUnit.COUNT, "Reads what is not there.", sql),
        ],
    )
