"""A comparison of two runs as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefopt.console import PLAIN
from prefopt.report.compare import TOLERANCE, Comparison, Curves, Differing, Parting

if TYPE_CHECKING:
    from rich.console import Console

_ROWS = 40
"""Lines that a part gets on a terminal."""


def print_comparison(found: Comparison, console: Console) -> None:
    """Settings, versions, data, curves; a part in which nothing differs is one line."""
    for letter, label, folder in zip("AB", found.labels, found.folders):
        console.print(f"{letter}  {label}  {folder}", **PLAIN)
    _print_part("settings", found.settings, console)
    _print_part("versions", found.versions, console)
    _print_part("data", found.data, console)
    console.print(f"\ncurves: {verdict(found)}", **PLAIN)
    equal = [curve for curve in found.curves if curve.first is None and curve.shared]
    for curve in found.curves:
        if curve.first is not None:
            console.print(f"  {curve.name}: {parting(curve)}", **PLAIN)
    if len(equal) < len(found.curves):
        for at in dict.fromkeys(map(_where, equal)):
            listed = ", ".join(curve.name for curve in equal if _where(curve) == at)
            console.print(f"  equal bit for bit{at}: {listed}", **PLAIN)
    if apart := [curve.name for curve in found.curves if not curve.shared]:
        console.print(f"  at no step that is in both: {', '.join(apart)}", **PLAIN)
    for letter, names in zip("AB", found.only):
        if names:
            console.print(f"  only in {letter}: {', '.join(names)}", **PLAIN)
    for note in found.notes:
        console.print(f"note: {note}", **PLAIN)


def _where(curve: Curves) -> str:
    """The steps that both have, where one has others besides: of those nothing is said."""
    if curve.only == (0, 0):
        return ""
    return " at the one step that is in both" if curve.shared == 1 else f" at the {curve.shared} steps that are in both"


def verdict(found: Comparison) -> str:
    """What the curves say, in one sentence."""
    if not found.curves:
        return "the runs have no metric in common"
    steps = max(curve.shared for curve in found.curves)
    if found.is_equal:
        return f"all {len(found.curves)} metrics are equal bit for bit at all {steps} steps that they have"
    parted = [curve for curve in found.curves if curve.first is not None]
    if not parted:
        longer = "AB"[max(curve.only[1] for curve in found.curves) > max(curve.only[0] for curve in found.curves)]
        return f"equal bit for bit at the {steps} steps that both have; {longer} has more"
    first = min(curve.first.step for curve in parted if curve.first is not None)
    beyond = [curve.beyond.step for curve in parted if curve.beyond is not None]
    more = f"by more than {TOLERANCE:g} from step {min(beyond)} on" if beyond else f"never by more than {TOLERANCE:g}"
    return f"they differ from step {first} on, {more} (relatively; {steps} steps are in both)"


def parting(curve: Curves) -> str:
    """Where one metric parts."""
    assert curve.first is not None
    said = f"first differs at step {_values(curve.first)}"
    if curve.beyond is None:
        return f"{said}; never by more than {TOLERANCE:g}"
    if curve.beyond.step == curve.first.step:
        return said
    return f"{said}; by more than {TOLERANCE:g} at step {_values(curve.beyond)}"


def _values(at: Parting) -> str:
    return f"{at.step} ({at.values[0]:.9g} and {at.values[1]:.9g}, {at.relative:.1e} of it)"


def _print_part(name: str, differing: Sequence[Differing], console: Console) -> None:
    if not differing:
        console.print(f"\n{name}: the same", **PLAIN)
        return
    console.print(f"\n{name}: {len(differing)} {'differs' if len(differing) == 1 else 'differ'}", **PLAIN)
    for of in differing[:_ROWS]:
        came = f"   (by {' | '.join(origin or 'default' for origin in of.origins)})" if any(of.origins) else ""
        console.print(f"  {of.key}: {_text(of.values[0])} | {_text(of.values[1])}{came}", **PLAIN)
    if len(differing) > _ROWS:
        console.print(f"  and {len(differing) - _ROWS} more; --format json has all", **PLAIN)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
