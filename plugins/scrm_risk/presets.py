"""The rules that are there without being written: what private-domain operations are commonly watched for, each with what is to
be done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _rule(
    name: str, english: str, indicator: str, severity: str, playbook: str, condition: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    said = {"name": name, "names": {"en": english}, "indicator": indicator, "severity": severity, "playbook": playbook}
    return {**said, "condition": condition, **more}


def _all(*conditions: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "all", "conditions": conditions}


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "growth_low": _rule(
        "增长率过低",
        "Growth is low",
        "growth_rate",
        "GENERAL",
        "复盘获客渠道与活动，增加投放或裂变活动，一周内给出增长方案。"
        "Review channels and campaigns, add acquisition or referral activities, "
        "and have a plan within a week.",
        {"kind": "threshold", "below": "0.03"},
        period="MONTH",
    ),
    "growth_watch": _rule(
        "增长率偏低",
        "Growth is on the low side",
        "growth_rate",
        "WATCH",
        "关注各渠道新增，优化引流内容；5%–10% 为正常。"
        "Watch what each channel brings and improve what attracts; 5–10 % is normal.",
        {"kind": "threshold", "at_least": "0.03", "below": "0.05"},
        period="MONTH",
    ),
    "growth_below_mean": _rule(
        "增长率低于均值 20%",
        "Growth is 20 % below its mean",
        "growth_rate",
        "GENERAL",
        "对比历史同期，排查渠道异常并调整预算。"
        "Compare with earlier periods, look for a channel that broke, and shift the budget.",
        {"kind": "off_mean", "window": 8, "by": "0.2", "direction": "below"},
        period="WEEK",
    ),
    "unfollow_high": _rule(
        "取关率连续三天过高",
        "Too many unfollow, three days in a row",
        "unfollow_rate",
        "URGENT",
        "立即暂停群发，排查推送频率与内容，24 小时内回访流失用户。"
        "Stop mass messages at once, check their frequency and content, and call "
        "back who left within 24 hours.",
        {"kind": "in_a_row", "periods": 3, "condition": {"kind": "threshold", "above": "0.05"}},
    ),
    "interaction_low": _rule(
        "互动率偏低",
        "Interaction is low",
        "interaction_rate",
        "WATCH",
        "策划互动话题与活动，激活沉默用户。Plan topics and activities, and wake silent people.",
        {"kind": "threshold", "below": "0.15"},
        period="WEEK",
    ),
    "content_interaction_low": _rule(
        "内容互动率低且连续下降",
        "Content interaction is low and falls",
        "content_interaction_rate",
        "GENERAL",
        "调整选题与形式，做 A/B 测试，增加用户共创内容。Change topics and forms, test variants, and let people contribute.",
        _all({"kind": "threshold", "below": "0.2"}, {"kind": "trend", "direction": "falling", "times": 2}),
        period="WEEK",
    ),
    "refund_high": _rule(
        "退款用户占比过高",
        "Many buyers are refunded",
        "refund_user_rate",
        "WATCH",
        "分析退款原因，核查商品与物流，改进售后说明。Find out why, check goods and delivery, and explain after-sales better.",
        {"kind": "threshold", "above": "0.03"},
        period="WEEK",
    ),
    "dispute_high": _rule(
        "交易纠纷率高且上升",
        "Disputes are many and rising",
        "dispute_rate",
        "IMPORTANT",
        "成立专项小组逐单处理，核查商家与话术，必要时下架。"
        "Handle each one in a task force, check sellers and scripts, take goods off "
        "where needed.",
        _all({"kind": "threshold", "above": "0.02"}, {"kind": "difference", "above": "0.005"}),
        period="WEEK",
    ),
    "new_users_swing": _rule(
        "新增用户波动 ±20%",
        "New users swing by 20 %",
        "new_users",
        "WATCH",
        "核对渠道数据与活动排期，排除刷量。Check the channels' figures and the calendar of campaigns; rule out fakes.",
        {"kind": "change", "rise": "0.2", "fall": "0.2"},
    ),
    "conversion_outlier": _rule(
        "转化率超出 2σ",
        "Conversion is outside 2σ",
        "conversion_rate",
        "GENERAL",
        "检查支付与页面链路、价格与库存，对照活动。Check payment, pages, prices and stock, and compare with campaigns.",
        {"kind": "deviation", "window": 28, "sigmas": "2"},
    ),
    "complaints_jump": _rule(
        "投诉量上升 50%",
        "Complaints rise by half",
        "complaints",
        "IMPORTANT",
        "4 小时内响应，归类投诉原因，统一口径并公示处理进度。"
        "Respond within 4 hours, sort the causes, agree on an answer and say how far it is.",
        {"kind": "change", "rise": "0.5", "minimum": 5},
    ),
    "opinion_high": _rule(
        "舆情指数过高",
        "The opinion index is high",
        "opinion_index",
        "URGENT",
        "启动舆情应急：2 小时内评估并发布回应，持续监测并复盘。"
        "Start the crisis routine: assess and answer within 2 hours, keep watching, "
        "and review afterwards.",
        {"kind": "threshold", "above": "800"},
    ),
    "points_velocity": _rule(
        "单用户积分获取过快",
        "One person earns points too fast",
        "points_earned",
        "IMPORTANT",
        "核查积分来源与订单真实性，必要时冻结账户。"
        "Check where the points come from and whether the orders are real; freeze the account "
        "where needed.",
        {"kind": "threshold", "at_least": "10000"},
        per="user",
        days=1,
    ),
    "coupon_abuse": _rule(
        "单用户频繁核销优惠券",
        "One person redeems many coupons",
        "coupons_redeemed",
        "GENERAL",
        "核查是否代领或转售，限制领取。Check for reselling, and limit what the person can take.",
        {"kind": "threshold", "at_least": "10"},
        per="user",
        days=7,
    ),
    "referral_abuse": _rule(
        "单用户异常邀请",
        "One person invites suspiciously many",
        "referrals",
        "IMPORTANT",
        "核查被邀请人的设备与行为，暂缓发放奖励。Check the invited people's devices and behaviour; hold back rewards.",
        {"kind": "threshold", "at_least": "20"},
        per="user",
        days=7,
    ),
}
