"""A method's numbers stay what they were, or its version of semantics goes up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from semantics_bed import CASES, FILE, key_of, measure

from prefopt.loss_code import loss_semantics
from prefopt.losses import names

RECORDED = json.loads(FILE.read_text())


@pytest.mark.parametrize("settings", CASES, ids=key_of)
def test_the_numbers_are_those_of_the_recorded_version(settings: dict[str, Any]) -> None:
    key = key_of(settings)
    assert key in RECORDED, "a new method: python tests/losses/semantics_bed.py records its numbers"
    recorded, found = RECORDED[key], measure(settings)
    same = found["loss"] == pytest.approx(recorded["loss"], rel=1e-9, abs=1e-12)
    same &= found["gradient"] == pytest.approx(recorded["gradient"], rel=1e-9, abs=1e-12)
    if found["semantics"] == recorded["semantics"]:
        assert same, (
            f"{settings['name']} gives other numbers than its version {recorded['semantics']}: if that is meant,"
            f" bump the version (semantics: ClassVar[int] = {recorded['semantics'] + 1} in its dataclass), say so in"
            " CHANGELOG.md and run python tests/losses/semantics_bed.py"
        )
    assert found["semantics"] == recorded["semantics"], "record the new version: python tests/losses/semantics_bed.py"


def test_every_method_is_recorded_and_nothing_else() -> None:
    assert RECORDED.keys() == {key_of(settings) for settings in CASES}


def test_the_manifest_names_the_version_of_every_part() -> None:
    mixed = {"name": "mix", "parts": [{"name": "dpo"}, {"name": "sft", "weight": 0.5}]}
    assert loss_semantics(mixed) == {"dpo": 1, "mix": 1, "sft": 1}
    assert loss_semantics({"name": names()[0]}) == {names()[0]: 1}
