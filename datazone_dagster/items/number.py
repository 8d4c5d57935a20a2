"""DynamoDB numbers: up to 38 significant digits, magnitudes from 1E-130 to below 1E+126.

The limits are the service's (Developer Guide, "Supported data types"). Everything here is
exact: no binary floating point.
"""

from __future__ import annotations

import re

MAX_SIGNIFICANT_DIGITS = 38
MIN_MAGNITUDE = -130
MAX_MAGNITUDE = 125

_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d{1,6}))?", re.ASCII)


def split_number(text: str) -> tuple[bool, str, int]:
    """Sign, significant digits and exponent: the value is `digits * 10 ** exponent`.

    The digits carry no zeros at either end, so that equal numbers give equal parts; zero is
    `(False, "0", 0)`.

    Raises:
        ValueError: Not a number, or outside of what DynamoDB stores.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError("not a number")
    sign, whole, fraction, exponent_text = match.groups()
    fraction = fraction or ""
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return False, "0", 0
    exponent = int(exponent_text or 0) - len(fraction)
    significant = digits.rstrip("0")
    exponent += len(digits) - len(significant)
    if len(significant) > MAX_SIGNIFICANT_DIGITS:
        raise ValueError(f"a number of more than {MAX_SIGNIFICANT_DIGITS} significant digits")
    if not MIN_MAGNITUDE <= exponent + len(significant) - 1 <= MAX_MAGNITUDE:
        raise ValueError("a number beyond the range of DynamoDB")
    return sign == "-", significant, exponent


def canonical_number(text: str) -> str:
    """One text for every way to write a number: 1, 1.0 and 1E0 are all `1`.

    Plain notation where the digits reach it, else `<digits>E<exponent>`. A whole number of up
    to 38 digits without leading zeros is its own canonical text.

    Raises:
        ValueError: Not a number, or outside of what DynamoDB stores.
    """
    negative, digits, exponent = split_number(text)
    if exponent >= 0 and len(digits) + exponent <= MAX_SIGNIFICANT_DIGITS:
        plain = digits + "0" * exponent
    elif -MAX_SIGNIFICANT_DIGITS <= exponent < 0:
        padded = digits.rjust(1 - exponent, "0")
        plain = f"{padded[:exponent]}.{padded[exponent:]}"
    else:
        plain = f"{digits}E{exponent}"
    return f"-{plain}" if negative else plain
