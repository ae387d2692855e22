"""Every loop that comes with prefopt runs from its recipe to its last model, in miniature."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from prefopt.recipe_files import ROUNDS_TREE, choices, search_path

SHORT = "train.max_steps=2, data.max_length=64, train.batch_size=8, train.eval_every=never, launch.device=cpu"
ONE = f"{SHORT}, launch.num_processes=1"
SAMPLES = "[generate=sample, generate.n=4, generate.max_new_tokens=24, limit=8]"

LOOPS = {
    "iterative_dpo": (["rounds=2", f"inputs.sampling={SAMPLES}", f"inputs.training=[{ONE}]"], 4),
    "rrhf_two_iterations": (
        [
            "inputs.sampling=[generate=diverse_beam, generate.max_new_tokens=24, generate.unfinished=keep, limit=8]",
            f"inputs.training=[{ONE}]",
        ],
        4,
    ),
    "rso_loop": (
        [
            f"inputs.sampling={SAMPLES}",
            "inputs.rejection=[select=rso, select.num_samples=2, select.ranking=first_round]",
            f"inputs.common=[{ONE}]",
        ],
        9,
    ),
    # The backward model needs all of its epoch to learn to answer at all.
    "back_translation": (
        ["rounds=1", "inputs.training=[train.max_steps=2]", "inputs.curation=[select=above, select.threshold=-2]"],
        4,
    ),
    "modpo_front": ([f"inputs.training=[{ONE}]"], 6),
}
"""Words that make each loop short, and how many steps it then has."""


def test_every_loop_is_here() -> None:
    assert sorted(LOOPS) == list(choices("recipe", search_path(tree=ROUNDS_TREE)))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("recipe", LOOPS)
def test_a_loop_runs_from_its_recipe_to_its_last_model(recipe: str, tmp_path: Path) -> None:
    words, num_steps = LOOPS[recipe]
    command = [sys.executable, "-m", "prefopt.cli", "rounds", f"recipe={recipe}", f"dir={tmp_path / 'loop'}", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=550, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    steps = [line for line in done.stdout.splitlines() if "prefopt:" in line]
    models = list((tmp_path / "loop").glob("*/*/model/model.safetensors"))
    rows = list((tmp_path / "loop").glob("*/*/pairs.jsonl"))
    assert len(models) + len(rows) == num_steps, steps
    for file in rows:
        assert all("prompt" in json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert again.returncode == 0, "a loop that is done has nothing left to do"
