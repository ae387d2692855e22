"""What a command line left alone of a recipe, though it changed what goes with it: a note each."""

from __future__ import annotations

from collections.abc import Iterator

from prefopt.merge import set_by
from prefopt.settings import RunSettings

_WORD = "command line"
_ADAPTERS = 1e-5
"""Peak rate below which adapters hardly move; those of all weights lie there. Published rates of adapters: 5e-6 (QLoRA
DPO of the alignment-handbook) to 5e-4 (MODPO)."""


def recipe_notes(run: RunSettings, origins: list[tuple[str, str]]) -> Iterator[str]:
    """A sentence each. origins: who set which key, in order, as `Merged` has them."""
    held_out = set_by("data.eval", origins)
    if run.data.eval and set_by("data.train", origins) == _WORD != held_out:
        yield (
            f"data.train is of the command line, data.eval.{', data.eval.'.join(run.data.eval)} still of {held_out};"
            " 'data.eval={}' data.eval_size=N holds out rows of data.train instead"
        )
    of_rate = set_by("optim.lr", origins)
    if run.model.lora is not None and set_by("model.lora", origins) == _WORD != of_rate and run.optim.lr < _ADAPTERS:
        yield (
            f"optim.lr={run.optim.lr:g} is of {of_rate}, which trains all weights; adapters usually take ten to a"
            " hundred times as much (docs/howto/lora.md)"
        )
