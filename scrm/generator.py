"""People of a retail brand in China who exist nowhere: who they are, and everything they did, drawn from a seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from scrm.events.records import IdentityRef, NewEvent
from scrm.importing.mapping import UserRow
from scrm.users.service import NewIdentity

SOURCE = "demo"

_SURNAMES = "王李张刘陈杨黄赵周吴徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹"
_FEMALE = "芳娜敏静丽艳娟霞婷雪慧莹倩琳颖洁梅萍红玉晴悦欣怡佳薇岚蕊"
_MALE = "伟强磊军洋勇杰涛超明刚辉鹏宇浩凯健俊帆波斌峰晨阳博文航"
_EITHER = "子一思安雨晓嘉若天可景书"

_CITIES = (  # city, region, tag, weight
    ("上海", "上海", "city-first", 16), ("北京", "北京", "city-first", 12), ("深圳", "广东", "city-first", 9),
    ("广州", "广东", "city-first", 9), ("成都", "四川", "city-rising", 10), ("杭州", "浙江", "city-rising", 9),
    ("重庆", "重庆", "city-rising", 6), ("武汉", "湖北", "city-rising", 6), ("南京", "江苏", "city-rising", 5),
    ("西安", "陕西", "city-rising", 5), ("昆明", "云南", "city-other", 4), ("南昌", "江西", "city-other", 3),
    ("兰州", "甘肃", "city-other", 2), ("洛阳", "河南", "city-other", 2), ("泉州", "福建", "city-other", 2),
)  # fmt: skip

_PRODUCTS = {  # category: (sku, price in minor units)
    "skincare": (("SK-101", 16800), ("SK-102", 25900), ("SK-103", 8900), ("SK-104", 39900)),
    "makeup": (("MU-201", 12900), ("MU-202", 7900), ("MU-203", 19900)),
    "tea": (("TE-301", 5900), ("TE-302", 12800), ("TE-303", 29800)),
    "home": (("HO-401", 9900), ("HO-402", 21900), ("HO-403", 4500)),
    "baby": (("BA-501", 13900), ("BA-502", 6900), ("BA-503", 32900)),
}
_CATEGORIES = tuple(_PRODUCTS)
_STORES = ("store-xujiahui", "store-chunxi")
_GROUPS = ("group-members", "group-new")
_CAMPAIGNS = ("spring-new", "618", "double-11", "member-day")
_COMPLAINTS = ("物流太慢", "包装破损", "与描述不符", "客服未回复")
_STAFF = ("小陈", "小林", "阿May", "Leo")


@dataclass(frozen=True, slots=True)
class _Habit:
    """How one kind of customer behaves."""

    weight: int
    visits: tuple[int, int]
    buys: float
    joined: tuple[int, int]
    quiet: tuple[int, int]
    leaves: float
    tags: tuple[str, ...]


_HABITS = (
    _Habit(15, (12, 26), 0.5, (150, 420), (0, 12), 0.0, ("member-loyal",)),
    _Habit(35, (5, 12), 0.3, (60, 360), (2, 45), 0.03, ()),
    _Habit(28, (3, 9), 0.05, (10, 240), (0, 40), 0.08, ("looks-only",)),
    _Habit(22, (3, 8), 0.3, (200, 460), (95, 190), 0.3, ("price-sensitive",)),
)

_WECHAT = {"wechat-oa": "o", "wecom": "wm", "mini-program": "mp"}
"""Channels of one platform: their ids of one person share a union id. The value is how an id begins."""


@dataclass(frozen=True, slots=True)
class DemoUser:
    """A person, and what they did, oldest first."""

    profile: UserRow
    events: tuple[NewEvent, ...]


def generate(seed: int, users: int, as_of: datetime, zone: ZoneInfo, currency: str) -> Iterator[DemoUser]:
    """`users` people, all of whose events lie before `as_of`.

    The same arguments give the same people, and fewer people are the first of more.
    """
    for number in range(1, users + 1):
        yield _Person(seed, number, as_of, zone, currency).build()


@dataclass
class _Person:
    """One person while they are being made up; every choice is drawn from the person's own generator."""

    seed: int
    number: int
    as_of: datetime
    zone: ZoneInfo
    currency: str
    said: list[tuple[datetime, str, str, str | None, int | None, dict[str, Any]]] = field(default_factory=list)
    """(when, type, identity's channel, event's channel if another, amount, properties)"""

    def build(self) -> DemoUser:
        self.draw = random.Random(f"scrm:{self.seed}:{self.number}")
        self.habit: _Habit = self.draw.choices(_HABITS, [habit.weight for habit in _HABITS])[0]
        self.city: tuple[str, str, str, int] = self.draw.choices(_CITIES, [city[3] for city in _CITIES])[0]
        self.likes: str = self.draw.choice(_CATEGORIES)
        self.joined: datetime = self._local(self.as_of - timedelta(days=self.draw.randint(*self.habit.joined)))
        self.last = self.as_of - timedelta(days=self.draw.randint(*self.habit.quiet), hours=1)
        self.channels = self._choose_channels()
        self.late_union = "mini-program" in self.channels and self.draw.random() < 0.08
        self.late_union &= not _WECHAT.keys().isdisjoint(self.channels[1:]) or self.channels[0] in ("wecom", "wechat-oa")
        self._join()
        for when in self._visits():
            self._visit(when)
        self._leave()
        return DemoUser(self._profile(), self._events())

    def _choose_channels(self) -> list[str]:
        """The channel that won them first, then the others."""
        first = self.draw.choices(("wecom", "mini-program", "wechat-oa", "douyin", "store"), (34, 26, 16, 14, 10))[0]
        chances = {"wecom": 0.45, "mini-program": 0.6, "wechat-oa": 0.35, "douyin": 0.12, "store": 0.15}
        return [first, *(name for name, chance in chances.items() if name != first and self.draw.random() < chance)]

    def _local(self, when: datetime) -> datetime:
        """The same day at an hour when people are awake."""
        hour = self.draw.choices(range(8, 24), (2, 3, 4, 4, 6, 5, 3, 3, 3, 4, 5, 7, 9, 9, 6, 3))[0]
        clock = {"hour": hour, "minute": self.draw.randrange(60), "second": self.draw.randrange(60), "microsecond": 0}
        return when.astimezone(self.zone).replace(**clock)  # type: ignore[arg-type]

    def _visits(self) -> list[datetime]:
        """Times between joining and going quiet, more of them towards the end."""
        span = max((self.last - self.joined).days, 1)
        count = self.draw.randint(*self.habit.visits)
        days = (int(span * self.draw.random() ** 0.7) for _ in range(count))
        return sorted(self._local(self.joined + timedelta(days=day)) for day in days)

    def _say(
        self, when: datetime, type: str, channel: str, amount: int | None = None, *, at: str | None = None, **properties: Any
    ) -> None:
        if when < self.as_of:
            self.said.append((when, type, channel, at, amount, properties))

    def _join(self) -> None:
        when = self.joined
        for n, channel in enumerate(self.channels):
            moment = when + timedelta(minutes=n * self.draw.randint(1, 9000))
            if channel in ("wecom", "wechat-oa", "douyin"):
                code = self.draw.choice(("wecom-shanghai", "wecom-chengdu")) if channel == "wecom" else None
                self._say(moment, "user.followed", channel, at=code)
            elif channel == "mini-program":
                self._say(moment, "user.signed_up", channel)
            if channel == "wecom" and self.draw.random() < 0.55:
                self.group: str | None = self.draw.choice(_GROUPS)
                self._say(moment + timedelta(minutes=20), "group.joined", "wecom", at=self.group, groupId=self.group)
            elif channel == "wecom":
                self.group = None

    def _visit(self, when: datetime) -> None:
        channel = self.draw.choice(self.channels)
        category = self.likes if self.draw.random() < 0.7 else self.draw.choice(_CATEGORIES)
        if channel in ("mini-program", "douyin"):
            for step in range(self.draw.randint(1, 4)):
                sku = self.draw.choice(_PRODUCTS[category])[0]
                self._say(when + timedelta(minutes=2 * step), "page.viewed", channel, page=f"/products/{sku}", category=category)
        elif channel == "wecom":
            self._chat(when)
        elif channel == "wechat-oa":
            article = f"article-{self.draw.randint(1, 40)}"
            self._say(when, "content.read", channel, contentId=article)
            if self.draw.random() < 0.35:
                liked = self.draw.choice(("content.liked", "content.shared"))
                self._say(when + timedelta(minutes=3), liked, channel, contentId=article)
        if self.draw.random() < self.habit.buys:
            self._buy(when + timedelta(minutes=15), channel, category)

    def _chat(self, when: datetime) -> None:
        if self.group is not None and self.draw.random() < 0.5:
            self._say(when, "group.spoke", "wecom", at=self.group, groupId=self.group)
            return
        staff = self.draw.choice(_STAFF)
        self._say(when, "message.received", "wecom", messageId=f"m-{self.number}-{len(self.said)}", staff=staff)
        if self.draw.random() < 0.8:
            answer = when + timedelta(minutes=self.draw.randint(1, 50))
            self._say(answer, "message.sent", "wecom", messageId=f"m-{self.number}-{len(self.said)}", staff=staff)

    def _buy(self, when: datetime, seen: str, category: str) -> None:
        sellers = [channel for channel in self.channels if channel in ("mini-program", "douyin", "store")]
        channel = seen if seen in sellers else self.draw.choice(sellers) if sellers else self.channels[0]
        items = []
        for sku, price in self.draw.sample(_PRODUCTS[category], self.draw.choices((1, 2, 3), (6, 3, 1))[0]):
            quantity = self.draw.choices((1, 2, 3), (8, 2, 1))[0]
            items.append({"sku": sku, "category": category, "quantity": quantity, "amount": price * quantity})
        total = sum(item["amount"] for item in items)  # type: ignore[misc]
        order = f"D{self.seed}-{self.number}-{len(self.said)}"
        properties: dict[str, Any] = {"orderId": order, "items": items}
        store = self.draw.choice(_STORES) if channel == "store" else None
        if store is not None:
            properties["store"] = store
        if self.draw.random() < 0.2:
            properties["campaign"] = self.draw.choice(_CAMPAIGNS)
        self._say(when, "order.paid", channel, total, at=store, **properties)
        self._regret(when, channel, order, items, total)

    def _regret(self, when: datetime, channel: str, order: str, items: Sequence[dict[str, Any]], total: int) -> None:
        chance = self.draw.random()
        later = when + timedelta(days=self.draw.randint(1, 9), minutes=self.draw.randint(1, 600))
        if chance < 0.035:
            self._say(later, "order.refunded", channel, total, orderId=order)
        elif chance < 0.07:
            part = items[0]["amount"] if len(items) > 1 else total // 2
            self._say(later, "order.refunded", channel, part, orderId=order)
        if 0.06 < chance < 0.09:
            reason = self.draw.choice(_COMPLAINTS)
            self._say(when + timedelta(days=1, minutes=90), "complaint.filed", channel, orderId=order, reason=reason)

    def _leave(self) -> None:
        followed = [channel for channel in self.channels if channel in ("wecom", "wechat-oa", "douyin")]
        if followed and self.draw.random() < self.habit.leaves:
            self._say(self.last + timedelta(minutes=30), "user.unfollowed", self.draw.choice(followed))

    def _external_id(self, channel: str) -> str:
        if channel == "store":
            return f"M{self.seed:02}{self.number:07}"
        digest = hashlib.blake2b(f"{self.seed}:{self.number}:{channel}".encode(), digest_size=12).hexdigest()
        return f"{_WECHAT.get(channel, 'dy')}_{digest}"

    def _union_id(self, channel: str) -> str | None:
        return f"un_{self._external_id('union')[3:]}" if channel in _WECHAT else None

    def _profile(self) -> UserRow:
        """Who reports their union id late is not known by the mini-program yet: two users that become one."""
        draw = self.draw
        gender = draw.choices(("FEMALE", "MALE"), (68, 32))[0]
        given = _FEMALE if gender == "FEMALE" else _MALE
        first = draw.choice(given if draw.random() < 0.6 else _EITHER)
        name = draw.choice(_SURNAMES) + first + (draw.choice(given) if draw.random() < 0.5 else "")
        fields: dict[str, Any] = {"display_name": name, "gender": gender, "country": "CN", "language": "zh-CN"}
        fields |= {"city": self.city[0], "region": self.city[1]}
        if draw.random() < 0.7:
            fields["phone"] = f"100{self.seed % 1000:03}{self.number:05}"
        if draw.random() < 0.25:
            fields["email"] = f"demo{self.seed}.{self.number}@example.com"
        if draw.random() < 0.6:
            fields["birthday"] = date(draw.randint(1966, 2005), draw.randint(1, 12), draw.randint(1, 28))
        known = [channel for channel in self.channels if not (channel == "mini-program" and self.late_union)]
        return UserRow(
            identities=tuple(NewIdentity(channel, self._external_id(channel), self._union_id(channel)) for channel in known),
            fields=fields,
            attributes={"preferredCategory": self.likes, "demo": True},
            tags=(self.city[2], *self.habit.tags),
        )

    def _events(self) -> tuple[NewEvent, ...]:
        self.said.sort(key=lambda said: said[0])
        own = [said[0] for said in self.said if said[2] == "mini-program"]
        told = own[len(own) // 2] if own and self.late_union else self.as_of
        return tuple(
            NewEvent(
                type=type,
                source=SOURCE,
                external_id=f"{self.seed}:{self.number}:{n}",
                occurred_at=when,
                identity=IdentityRef(channel, self._external_id(channel)),
                union_id=self._union_id(channel) if channel == "mini-program" and when >= told else None,
                channel=at,
                amount_minor=amount,
                currency=self.currency if amount is not None else None,
                properties=properties,
            )
            for n, (when, type, channel, at, amount, properties) in enumerate(self.said)
        )
