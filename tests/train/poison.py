"""Numbers that go wrong, planted: a model whose weights are all finite and that overflows on one row of the data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import make_model, make_pairs, overrides

LOGIT, GRADIENT = 1e38, 1e25
"""How large the weights of one token are. LOGIT: its logit overflows to -inf. GRADIENT: its logit is some -5e25 and the
loss is finite, but the squares in the gradient's norm overflow."""

POISON = "Z"
"""A token that no row of `make_pairs` has."""


def make_poisoned_model(folder: Path, size: float) -> Path:
    """The tiny model; only a response with `POISON` in it is harmed, since nobody else is asked for that logit.

    The first hidden number is made positive everywhere (it is that of the embedding), so that the logit of `POISON`, a
    huge negative multiple of it, is the least likely token at every place: its probability, and with it its share in
    any other token's gradient, is 0.
    """
    from transformers import AutoTokenizer

    make_model(folder)
    token = AutoTokenizer.from_pretrained(folder).encode(POISON, add_special_tokens=False)[0]
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"][:, 0] += 1.0
    tensors["lm_head.weight"][token] = 0.0
    tensors["lm_head.weight"][token, 0] = -size
    assert all(t.isfinite().all() for t in tensors.values())
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def make_poisoned_pairs(file: Path, row: int) -> Path:
    """32 pairs, that of line `row` (from 1) with `POISON` in its chosen response."""
    lines = make_pairs(file, count=32).read_text(encoding="utf-8").splitlines()
    poisoned = json.loads(lines[row - 1])
    poisoned["chosen"] += POISON
    lines[row - 1] = json.dumps(poisoned)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def words_for(model: Path, train: Path, heldout: Path, run_dir: Path, *more: str) -> list[str]:
    """`prefopt train` on 32 pairs, 4 a step, held-out rows of their own, a checkpoint after every step."""
    sets = ["data.eval_size=0", f"data.eval={{heldout: {{path: {heldout}}}}}"]
    usual = ["loss=simpo", "train.save_every=1", "train.keep_checkpoints=99"]
    return ["train", *overrides(model, train, run_dir, *sets, *usual, *more)]


def checkpoint_files(run_dir: Path) -> dict[str, bytes]:
    """Every file of every checkpoint."""
    folder = run_dir / "checkpoints"
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def assert_finite(folder: Path) -> None:
    """No number in any safetensors file below `folder` is NaN or infinite."""
    files = list(folder.rglob("*.safetensors"))
    assert files
    for file in files:
        for name, tensor in load_file(file).items():
            assert not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()), (file, name)


def strict(text: str) -> Any:
    """JSON as the standard has it: NaN and Infinity are no numbers there."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in {text[:200]}")

    return json.loads(text, parse_constant=refuse)
