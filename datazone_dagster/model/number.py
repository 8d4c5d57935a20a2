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
    """Split a number into sign, significant digits and exponent: `digits * 10 ** exponent`.

    The digits have no zeros at either end, so equal numbers give equal results; zero is
    `(False, "0", 0)`. The sign is True for a negative number.

    Raises:
        ValueError: The text is not a number, or is outside the range that DynamoDB stores.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError("not a number")
    sign, integer, fraction, exponent_text = match.groups()
    fraction = fraction or ""
    digits = (integer + fraction).lstrip("0")
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
    """Return the one canonical text of a number: 1, 1.0 and 1E0 are all `1`.

    The text is in plain notation if 38 digits suffice, else `<digits>E<exponent>`. An integer
    of up to 38 digits without leading zeros is its own canonical text.

    Raises:
        ValueError: The text is not a number, or is outside the range that DynamoDB stores.
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
