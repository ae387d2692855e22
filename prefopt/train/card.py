"""The README.md of a trained model, from the settings and the measurements."""

from __future__ import annotations

from prefopt import __version__
from prefopt.settings import RunSettings


def model_card(run: RunSettings, before: dict[str, float], after: dict[str, float], num_steps: int) -> str:
    """What was trained, how, and what was measured before and after."""
    loss = {k: v for k, v in run.loss.items() if k != "name"}
    rows = [f"| {k} | {before[k]:.4f} | {after[k]:.4f} |" for k in sorted(after) if k in before]
    sources = ", ".join(s.path for s in run.data.train)
    measured = (
        "\n".join(["| metric | before | after |", "|---|---|---|", *rows]) if rows else "No held-out set was given."
    )
    return f"""---
base_model: {run.model.path}
library_name: {"peft" if run.model.lora else "transformers"}
tags: [prefopt, {run.loss["name"]}]
---

# {run.name}

Trained with prefopt {__version__}: {run.loss["name"]} ({", ".join(f"{k}={v}" for k, v in loss.items())}) on {sources}.

- start: {run.model.path}{" with LoRA adapters" if run.model.lora else ""}{_held(run)}
- {num_steps} steps, batch size {run.train.batch_size}, seed {run.train.seed}
- {run.optim.name}, learning rate {run.optim.lr:g} ({run.optim.schedule})
- the settings in full are in `run.yaml` of the run folder; the folder alone repeats the run

## Held-out metrics

{measured}
"""


def _held(run: RunSettings) -> str:
    base = run.model.base
    return "" if base == "plain" else f", trained over weights held in {base}: load them so, or the numbers are others"
