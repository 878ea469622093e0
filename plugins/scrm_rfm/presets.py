"""The eleven usual segments with their cells, and the words for what every run may say."""

from __future__ import annotations

from typing import Any

PROSPECT, INSUFFICIENT, UNCLASSIFIED = "PROSPECT", "INSUFFICIENT_DATA", "UNCLASSIFIED"
HIGH_VALUE, POTENTIAL, ACTIVE, LOST = "HIGH_VALUE", "POTENTIAL", "ACTIVE", "LOST"
BANDS = (HIGH_VALUE, POTENTIAL, ACTIVE, LOST)

_ELEVEN = (
    (
        "CHAMPIONS",
        "核心客户",
        "Champions",
        "最近买过、买得勤、花得多。",
        "Bought lately, buy often and spend the most.",
        "555 554 544 545 454 455 445",
    ),
    (
        "LOYAL",
        "忠诚客户",
        "Loyal",
        "常来常买，金额可观。",
        "Buy regularly and spend well.",
        "543 444 435 355 354 345 344 335",
    ),
    (
        "POTENTIAL_LOYALIST",
        "潜在忠诚客户",
        "Potential Loyalist",
        "近期购买，且不止一次。",
        "Bought lately, and more than once.",
        "553 551 552 541 542 533 532 531 452 451 442 441 431 453 433 432 423 353 352 351 342 341 333 323",
    ),
    (
        "NEW_CUSTOMERS",
        "新客户",
        "New Customers",
        "最近才买，次数少，金额小。",
        "Bought lately, seldom and for little.",
        "512 511 422 421 412 411 311",
    ),
    (
        "PROMISING",
        "有潜力客户",
        "Promising",
        "最近才买，次数少，金额不小。",
        "Bought lately and seldom, but not for little.",
        "525 524 523 522 521 515 514 513 425 424 413 414 415 315 314 313",
    ),
    (
        "NEED_ATTENTION",
        "需关注客户",
        "Need Attention",
        "高于平均，但有一阵没来。",
        "Above average, but not seen for a while.",
        "535 534 443 434 343 334 325 324",
    ),
    (
        "ABOUT_TO_SLEEP",
        "即将沉睡客户",
        "About To Sleep",
        "低于平均，再不联系就要离开。",
        "Below average, and leaving unless spoken to.",
        "331 321 312 221 213 231 241 251",
    ),
    (
        "AT_RISK",
        "流失风险客户",
        "At Risk",
        "曾经常买、花得多，已久未购买。",
        "Bought often and spent much, long ago.",
        "255 254 245 244 253 252 243 242 235 234 225 224 153 152 145 143 142 135 134 133 125 124",
    ),
    (
        "CANNOT_LOSE_THEM",
        "不可流失客户",
        "Cannot Lose Them",
        "曾经花得最多，很久没有回来。",
        "Spent the most, and have not come back for long.",
        "155 154 144 214 215 115 114 113",
    ),
    (
        "HIBERNATING",
        "沉睡客户",
        "Hibernating",
        "很久以前买过几次，金额小。",
        "Bought a few times for little, long ago.",
        "332 322 233 232 223 222 132 123 122 212 211",
    ),
    (
        LOST,
        "流失客户",
        "Lost",
        "很久没有购买。",
        "Have not bought for the longest time.",
        "111 112 121 131 141 151",
    ),
)
_FURTHER = (
    (HIGH_VALUE, "高价值客户", "High Value", "阈值模式：三项都达到高价值线。", "Threshold mode: all three reach the high line."),
    (POTENTIAL, "潜力客户", "Potential", "阈值模式：三项都达到潜力线。", "Threshold mode: all three reach the potential line."),
    (
        ACTIVE,
        "活跃客户",
        "Active",
        "阈值模式：仍在购买，未达到潜力线。",
        "Threshold mode: still buying, below the potential line.",
    ),
    (LOST, "流失客户", "Lost", "很久没有购买。", "Have not bought for the longest time."),
    (
        UNCLASSIFIED,
        "未分类",
        "Unclassified",
        "严格阈值模式：不符合任何一行。",
        "Strict threshold mode: fits no row of the table.",
    ),
    (INSUFFICIENT, "数据不足", "Insufficient Data", "购买人数不足，无法评分。", "Too few buyers to score anybody."),
    (PROSPECT, "潜在客户", "Prospects", "在计算窗口内没有购买。", "Have not bought within the window."),
)


def _said(key: str, name: str, english: str, description: str, described: str) -> dict[str, Any]:
    names = {"name": name, "names": {"en": english}}
    return {"key": key, **names, "description": description, "descriptions": {"en": described}}


def eleven() -> list[dict[str, Any]]:
    """The usual map, a partition of the 125 cells."""
    return [{**_said(*words), "cells": cells.split()} for *words, cells in _ELEVEN]


def further() -> list[dict[str, Any]]:
    """What a run may say besides the segments of the map."""
    return [_said(*words) for words in _FURTHER]
