"""The measures by name: `measure=preferences` is the dataclass of `prefopt/evaluate/measures/preferences.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.registry import class_in, make_in, names_in, typed_in

MEASURES = "prefopt.evaluate.measures"


def measure_names() -> list[str]:
    """Every measure, sorted."""
    return names_in(MEASURES)


def measure_class(name: str) -> type:
    """The dataclass of a measure. Raises: UserError where there is none of that name."""
    return class_in(MEASURES, name, "measure", "measure")


def make_measure(settings: Mapping[str, Any]) -> Any:
    """The measure that {"name": "preferences", ...} describes.

    Raises: SettingsError for an unknown measure or setting, a value of another type, or one that the measure refuses.
    """
    return make_in(MEASURES, settings, "measure", "measure")


def typed_measure(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a measure, every one there and of its type. Raises: as `make_measure`."""
    return typed_in(MEASURES, settings, "measure", "measure")
