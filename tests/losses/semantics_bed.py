"""The numbers of each method on one fixed batch, and how they are recorded: `python tests/losses/semantics_bed.py`.

Record anew only after the method's `semantics` has gone up by one: the recorded numbers are what a user's results of an
earlier release came from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bed import VARIANTS, Row, counts, coupled, make

from prefopt.losses import make_loss, names, semantics

FILE = Path(__file__).with_name("semantics.json")
CASES: list[dict[str, Any]] = [*({"name": name} for name in names()), *VARIANTS]
"""Every method by its defaults, and the settings that change what is computed."""


def key_of(settings: dict[str, Any]) -> str:
    """How a case is named in the file."""
    return json.dumps(settings, sort_keys=True)


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Version, loss, and the loss's gradient by each response token's log-probability, 12 digits of each."""
    batch = make(
        [
            [Row((-0.5, -1.25), -2.0, True, 1.0, (0.5,)), Row((-2.0, -0.125, -0.75), -2.5, False, 0.0, (-0.25,))],
            [Row((-0.25, -0.5, -3.0), -4.0, True, 0.75, (0.0,)), Row((-1.5,), -1.0, False, 0.25, (1.0,))],
            [Row((-0.0625, -0.75), -0.5, True, 0.875, (0.25,)), Row((-4.0, -2.5), -7.0, False, 0.125, (0.125,))],
        ]
    )
    loss = make_loss(settings)(coupled(settings, batch)).total(counts(batch))
    loss.backward()
    assert batch.token_logps.grad is not None
    gradient = [float(f"{value:.12g}") for value in batch.token_logps.grad.tolist()]
    return {"semantics": semantics(settings["name"]), "loss": float(f"{loss.item():.12g}"), "gradient": gradient}


def main() -> None:
    """Write the file; a method whose numbers changed under the same version stops it."""
    old = json.loads(FILE.read_text()) if FILE.exists() else {}
    new = {key_of(settings): measure(settings) for settings in CASES}
    for key, found in new.items():
        if key in old and old[key] != found and old[key]["semantics"] == found["semantics"]:
            raise SystemExit(f"{key}: other numbers under the same version; raise its `semantics` first")
    FILE.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in new.items()) + "\n}\n")


if __name__ == "__main__":
    main()
