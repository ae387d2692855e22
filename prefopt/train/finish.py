"""The end of a run: a model folder that has been reloaded and compared before it gets its name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from prefopt.disk import disk_error, free_space, what_to_do
from prefopt.errors import RunError
from prefopt.model.save import PROBE_FILE, save_model, verify, write_probe
from prefopt.pack import pack
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3}
"""Largest difference, nats per token or of a reward, between the live model and the reloaded one's own attention."""


def save_and_verify(
    engine: Engine, tokenizer: PreTrainedTokenizerBase, start: Path, rows: Rows, folder: Path, card: str
) -> float:
    """Save to a temporary folder, verify in a fresh process, rename; returns the largest difference (nats or reward).

    Every rank must call. Raises, on every rank: RunError where the reloaded model differs, and the folder then keeps a
    name of its own; or where the disk is full or fails, and then nothing is left of it.
    """
    # What is read and not predicted in training is predicted here: a probe knows whole responses only.
    examples = [replace(rows[p], given=None) for p in range(min(2, len(rows)))]
    engine.module.eval()
    with torch.no_grad():
        batch = pack(examples, rows.share_prompts, whole_responses=rows.whole_responses).to(engine.device)
        live = engine(batch)
    state = engine.gathered_state()
    difference = 0.0
    failure: RunError | None = None
    if engine.is_main:
        unverified = folder.with_name(f"unverified-{folder.name}")
        try:
            shutil.rmtree(unverified, ignore_errors=True)
            save_model(engine.policy, state, tokenizer, start, unverified, card)
            write_probe(unverified / PROBE_FILE, examples, live, TOLERANCE[engine.arithmetic])
            difference = verify(unverified, unverified / PROBE_FILE, engine.run.model)
            (unverified / PROBE_FILE).unlink()
            shutil.rmtree(folder, ignore_errors=True)
            unverified.rename(folder)
        except Exception as error:  # one of ours, of the system, or of the library that wrote the file
            failure = error if isinstance(error, RunError) else _unsaved(unverified, error)
            if failure is None:
                raise
    if failures := [f for f in engine.gather(failure) if f is not None]:
        raise failures[0]
    return difference


def _unsaved(folder: Path, error: Exception) -> RunError | None:
    """The error to raise where the disk did not take the model, of which nothing stays; None for any other error."""
    said, number = disk_error(error)
    if not said:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    sentence = f"the model could not be saved in {folder} ({said}; {free_space(folder.parent)})"
    return RunError(sentence, what_to_do(number))
