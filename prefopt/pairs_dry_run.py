"""`prefopt pairs --dry-run`: what the stages would do to how many prompts, with which models, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.pairs.folder import CANDIDATES, CARD, ROWS
from prefopt.pairs.registry import make_stage
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import CountsAnswers
from prefopt.pairs_check import models, scorers


def dry_run_lines(settings: PairsSettings, kept: int, left_out: int) -> list[str]:
    """A line for each thing. kept, left_out: prompts of the file."""
    chunks = -(-kept // settings.chunk_size)
    lines = [
        f"prompts: {kept} prompts, {left_out} left out; {chunks} chunks of {settings.chunk_size} ({settings.prompts})",
        f"generate: {_said(settings.generate)}; {_answers(settings, kept)}",
        *(f"{where}: {_said(stage)}" for where, stage in scorers(settings)),
        f"select: {_said(settings.select)}",
        *(f"{key}: {path}" for path, key in models(settings).items()),
    ]
    writes = make_stage("select", settings.select).writes
    lines.append(f"out: {settings.out}: {ROWS} ({_WRITTEN[writes]}), {CANDIDATES}, {CARD}")
    return [*lines, "nothing is written"]


_WRITTEN = {
    "pairs": "a row for each pair: prompt, chosen, rejected",
    "ranked": "a row for each prompt, its responses with scores",
    "sft": "a row for each response that is taken",
}


def _answers(settings: PairsSettings, prompts: int) -> str:
    stage = make_stage("generate", settings.generate)
    policies = max(1, len(settings.policies)) if stage.needs_policy else 1
    if not isinstance(stage, CountsAnswers):
        return "no new answers"
    of = f" x {policies} policies" if policies > 1 else ""
    return f"{prompts * policies * stage.answers} answers ({prompts} prompts{of} x {stage.answers})"


def _said(stage: Mapping[str, Any]) -> str:
    own = ", ".join(f"{key}={value}" for key, value in stage.items() if key != "name")
    return f"{stage['name']} ({own})" if own else str(stage["name"])
