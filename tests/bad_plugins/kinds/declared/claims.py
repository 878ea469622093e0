"""Registers an event type, a scope and an indicator that the good plugin has, and an event type that the core has.

Outcome: it is left out, and both owners are named each time.
State: load_error
Reason: event type good.greeted is defined by good and by zz_claims; disable one; event type order.paid is defined by core and by zz_claims; rename it in zz_claims; scope good:read is defined by good and by zz_claims; disable one; indicator good_number is defined by good and by zz_claims; disable one
Name: zz_claims
With: good
"""

from scrm.api import Contribution, EventType, Indicator, IndicatorUnit, Scope, hookimpl


def series(tx, periods, channel_id, as_of):
    return []


@hookimpl
def contribute():
    return Contribution(
        name="zz_claims",
        version="1.0",
        event_types=[EventType("good.greeted", "Mine."), EventType("order.paid", "Mine too.")],
        scopes=[Scope("good:read", "And this.")],
        indicators=[Indicator("good_number", "And this.", IndicatorUnit.COUNT, "One.", series)],
    )
