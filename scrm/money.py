"""Amounts as people write them, and in minor units as they are kept."""

from __future__ import annotations

import functools
import re
from decimal import Decimal

from babel import Locale, UnknownLocaleError
from babel.numbers import format_currency, is_currency

from scrm.errors import ScrmError

MAX_MINOR = 2**63 - 1

_EXPONENTS = {
    **dict.fromkeys(
        ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"], 0
    ),
    **dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3),
    **dict.fromkeys(["CLF", "UYW"], 4),
}
_CODE = re.compile(r"[A-Z]{3}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}(\.[0-9]{0,18})?|[+-]?\.[0-9]{1,18}")
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")


@functools.lru_cache(maxsize=1000)
def is_code(text: str) -> bool:
    """Whether it is an ISO 4217 code, of today or of before."""
    return bool(_CODE.fullmatch(text)) and bool(is_currency(text))


def exponent(currency: str) -> int:
    """How many decimals an ISO 4217 currency has: 2 for CNY and USD, 0 for JPY, 3 for KWD."""
    return _EXPONENTS.get(currency, 2)


def major_to_minor(text: str, currency: str) -> int:
    """`12.5` yuan are 1250 fen; exact, never through a float.

    Raises:
        ScrmError: `INVALID_AMOUNT` if it is not a plain number, or has more decimals than the currency.
    """
    if not _NUMBER.fullmatch(text):
        raise _refused(f'the amount "{text}" is not a plain number such as 1234.50')
    places = exponent(currency)
    minor = Decimal(text).scaleb(places)
    if minor != minor.to_integral_value():
        raise _refused(f'the amount "{text}" has more decimals than {currency}, which has {places}')
    return _within(int(minor), text)


def whole_minor(text: str) -> int:
    """An amount that is already in minor units.

    Raises:
        ScrmError: `INVALID_AMOUNT` if it is not a whole number.
    """
    if not _WHOLE.fullmatch(text):
        raise _refused(f'the amount "{text}" is not a whole number of minor units')
    return _within(int(text), text)


def _within(minor: int, text: str) -> int:
    if abs(minor) > MAX_MINOR:
        raise _refused(f'the amount "{text}" has more than 64 bits in minor units')
    return minor


def _refused(message: str) -> ScrmError:
    return ScrmError("INVALID_AMOUNT", message, path=("amount",))


def formatted_money(minor: int, currency: str, locale: str) -> str:
    """An amount in words for people: ¥1,234.50 in zh-CN, CN¥1,234.50 in en. An unknown locale reads as en."""
    try:
        known = Locale.parse(locale.replace("-", "_"))
    except (UnknownLocaleError, ValueError):
        known = Locale("en")
    return str(format_currency(Decimal(minor).scaleb(-exponent(currency)), currency, locale=known))
