"""Random histories: what is alerted after each evaluation, as a plain model of the README says; and a replay gives the same."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pytest

from tests.plugins.tower import Tower, opened, threshold

CHANNELS = tuple(f"c{n}" for n in range(6))
FOR = {"at_once": 1, "after_two": 2}
BY_PERSON = {"coupons": "coupons_redeemed", "invites": "referrals"}
LIMIT, DAYS, BACK = 3, 3, 5
RULES = {key: threshold(for_periods=periods, flaps=0, channels=list(CHANNELS)) for key, periods in FOR.items()} | {
    key: threshold(measure, "WATCH", per="user", days=DAYS, flaps=0, condition={"kind": "threshold", "at_least": LIMIT})
    for key, measure in BY_PERSON.items()
}
CREATE = "mutation($input: CreateChannelInput!) { createChannel(input: $input) { errors { code } } }"
SEEN = "id state scope value resolvedAt rule { key } user { id }"


def back(day: date, count: int) -> date:
    """So many days before."""
    return day - timedelta(days=count)


@dataclass
class Series:
    """A rule on a channel: over 2 complaints on each of so many days."""

    periods: int
    complaints: Counter[date]
    state: str | None = None
    stands_on: date | None = None
    """The day on which what is open fired, as far as that is still so."""
    ended: int = 0
    judged: dict[date, bool] = field(default_factory=dict)

    def long(self, day: date) -> bool:
        return all(self.complaints[back(day, n)] > 2 for n in range(self.periods))

    def evaluate(self, newest: date) -> None:
        """First the days whose outcome changed, then those that are new, at the first time only the newest."""
        if not self.judged:
            self.judged = {back(newest, n): self.long(back(newest, n)) for n in range(1, 2 * BACK)}
        days = [back(newest, n) for n in reversed(range(2 * BACK))]
        for day in [day for day in days if day in self.judged and day != newest and self.judged[day] != self.long(day)]:
            behind = [later for later in days if later > day and self.long(later)]
            if self.long(day) and self.state is None:
                self.state, self.stands_on = "FIRING", day
            elif self.stands_on == day and behind:
                self.stands_on = behind[0]
            elif self.stands_on == day:
                self.end()
        for day in [day for day in days if day not in self.judged or day == newest]:
            if self.complaints[day] <= 2:
                self.end()
            elif self.long(day) and self.state in (None, "PENDING"):
                self.state, self.stands_on = "FIRING", day
            else:
                self.state = self.state or "PENDING"
        self.judged |= {day: self.long(day) for day in days}

    def end(self) -> None:
        self.ended += self.state is not None
        self.state = self.stands_on = None


class History:
    """What happens to a shop at random, and what has to be alerted of it."""

    def __init__(self, tower: Tower, dice: random.Random, people: list[str]) -> None:
        self.tower, self.dice, self.people = tower, dice, people
        self.day = date(2026, 3, 10)
        complaints = {channel: Counter[date]() for channel in CHANNELS}
        self.series = {(key, channel): Series(n, complaints[channel]) for key, n in FOR.items() for channel in CHANNELS}
        self.did: list[tuple[str, str, date]] = []
        self.merges: list[tuple[str, str, str]] = []

    def now_is(self, person: str) -> str:
        """Who somebody is by now."""
        for kept, absorbed, _ in self.merges:
            person = kept if person == absorbed else person
        return person

    async def go_on(self) -> None:
        """Something happens, some of it in the past."""
        sent = []
        for _ in range(self.dice.randrange(4, 12)):
            channel, day = self.dice.choice(CHANNELS), back(self.day, self.dice.choice([0, 0, 1, 1, 1, 2, 3, BACK]))
            count = self.dice.choice([1, 3, 3])
            self.series["at_once", channel].complaints[day] += count
            said = [self.tower.event("complaint.filed", self.people[0], None, None, f"{day}T10:00") for _ in range(count)]
            sent += [each | {"channel": channel} for each in said]
        for _ in range(self.dice.randrange(3, 9)):
            who, rule = self.dice.choice(self.people), self.dice.choice([*BY_PERSON])
            day = back(self.day, self.dice.choice([0, 0, 1, 2]))
            for _ in range(self.dice.choice([1, 2])):
                said = self.tower.event("referral.accepted", self.people[0], None, None, f"{day}T10:00")
                if rule == "coupons":
                    who = self.now_is(who)
                    said = self.tower.event("coupon.redeemed", who, None, None, f"{day}T10:00")
                self.did.append((rule, who, day))
                sent.append(said | {"properties": {"inviter": who} if rule == "invites" else {"couponId": "c"}})
        await self.tower.send(*sent)
        left = sorted({self.now_is(person) for person in self.people})
        if self.dice.random() < 0.5 and len(left) > 2:
            kept, absorbed = self.dice.sample(left, 2)
            self.merges.append((kept, absorbed, await self.tower.merge(kept, absorbed)))
        elif self.dice.random() < 0.5 and self.merges:
            await self.tower.unmerge(self.merges.pop()[2])
        for alert in await self.tower.alerts("(first: 100, filter: {state: [FIRING], severity: [GENERAL]})", SEEN):
            if self.dice.random() < 0.4:
                await self.tower.called("acknowledgeAlert", id=alert["id"])
                self.series[alert["rule"]["key"], alert["scope"]["channel"]].state = "ACKNOWLEDGED"

    async def evaluate(self, time: str) -> None:
        """Evaluate, and compare all that is alerted."""
        assert (await self.tower.evaluate(f"{self.day}T{time}"))["problems"] == []
        for each in self.series.values():
            each.evaluate(back(self.day, 1))
        counted = Counter((rule, self.now_is(who)) for rule, who, day in self.did if day > back(self.day, DAYS))
        pages = [await self.tower.alerts(f'(first: 100, filter: {{rule: ["{key}"]}})', SEEN) for key in RULES]
        found = [alert for page in pages for alert in page]
        of_channels = [alert for alert in found if "channel" in alert["scope"]]
        open_ = {(each["rule"]["key"], each["scope"]["channel"]): each["state"] for each in of_channels if not each["resolvedAt"]}
        assert open_ == {place: each.state for place, each in self.series.items() if each.state}
        ended = Counter((each["rule"]["key"], each["scope"]["channel"]) for each in of_channels if each["resolvedAt"])
        assert ended == Counter({place: each.ended for place, each in self.series.items()})
        of_people = {
            (each["rule"]["key"], each["user"]["id"]): each["value"]
            for each in found
            if "user" in each["scope"] and not each["resolvedAt"]
        }
        assert of_people == {place: count for place, count in counted.items() if count >= LIMIT}


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_is_open_is_what_the_model_says(migrated_url: str, seed: int) -> None:
    dice = random.Random(seed)
    async with opened(migrated_url, "2026-03-10T11:00", rules=RULES) as tower:
        for channel in CHANNELS:
            said: dict[str, Any] = {"key": channel, "name": channel, "kind": "WECOM"}
            assert await tower.client.data(CREATE, input=said) == {"createChannel": {"errors": []}}
        history = History(tower, dice, [await tower.member() for _ in range(6)])
        for step in range(9):
            await history.go_on()
            await history.evaluate(f"12:{step:02}")
            history.day += timedelta(days=dice.choice([0, 1, 1, 2, 3]))
            tower.set_time(f"{history.day}T12:{step:02}:30")
        await tower.check()
