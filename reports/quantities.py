"""Quantities with units as people read them: three digits and a prefix."""

from __future__ import annotations

from math import floor, isfinite, log10

__all__ = ["count", "percent", "quantity"]

_PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}


def quantity(value: float, unit: str, *, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and the prefix that keeps it between 1 and 1000.

    >>> quantity(0.0001234, "s"), quantity(0.0, "J"), quantity(2e8, "Hz"), quantity(999.9e-6, "s")
    ('123 µs', '0 J', '200 MHz', '1.00 ms')
    """
    if value == 0 or not isfinite(value):
        return f"{value:g} {unit}"
    # Rounded first, so that 999.9 becomes 1.00 of the next prefix.
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = max(-12, min(12, 3 * floor(log10(abs(rounded)) / 3)))
    scaled = rounded / 10.0**exponent
    whole = floor(log10(abs(scaled))) + 1
    return f"{scaled:.{max(0, digits - whole)}f} {_PREFIXES[exponent]}{unit}"


def count(number: int) -> str:
    """A whole number with thousands separators.

    >>> count(3495040)
    '3,495,040'
    """
    return f"{number:,}"


def percent(share: float, *, digits: int = 1) -> str:
    """A share of one as a percentage.

    >>> percent(0.98765)
    '98.8 %'
    """
    return f"{100 * share:.{digits}f} %"
