"""Numbers as people read them. What is missing is a dash, never 0."""

from __future__ import annotations

import math

MISSING = "–"


def number(value: float | None) -> str:
    """Four significant digits: 0.6931, -135.8, 12,480; 2e-05 below a ten-thousandth."""
    if value is None:
        return MISSING
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    if abs(value) < 1e-4 or abs(value) >= 1e7:
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """12.3 s, 4 min 05 s, 3 h 20 min, 2 d 3 h."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, small, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            width = 2 if below != "h" else 1
            return f"{whole // size} {unit} {whole % size // small:0{width}d} {below}"
    raise AssertionError(whole)  # 60 s and more have a unit above


def size(count: int | None) -> str:
    """Bytes in units of 1024: 723 MiB, 12.4 GiB."""
    if count is None:
        return MISSING
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
