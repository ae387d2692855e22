"""The end of a run: a model folder that has been reloaded and compared before it gets its name; and its rehearsal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from prefopt.disk import disk_error, free_space, what_to_do
from prefopt.durable import publish, sync_tree
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

    def take(draft: Path) -> None:
        sync_tree(draft)
        shutil.rmtree(folder, ignore_errors=True)
        publish(draft, folder)

    draft = folder.with_name(f"unverified-{folder.name}")
    return _write_and_verify(engine, tokenizer, start, rows, draft, card, take)


def rehearse(engine: Engine, tokenizer: PreTrainedTokenizerBase, start: Path, rows: Rows, folder: Path) -> float:
    """Save, verify in a fresh process and delete again, so that what cannot be saved is known early; the difference.

    A fault in saving (adapters that come out empty, a head that is not tied) shows with any trained weights. Every rank
    must call; training goes on after it. Raises: as `save_and_verify`.
    """
    draft = folder.with_name(f"rehearsed-{folder.name}")
    difference = _write_and_verify(engine, tokenizer, start, rows, draft, "", shutil.rmtree)
    engine.module.train()
    return difference


def _write_and_verify(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    start: Path,
    rows: Rows,
    draft: Path,
    card: str,
    take: Callable[[Path], None],
) -> float:
    """take: what becomes of the draft that was verified, on the main rank."""
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
        try:
            for kind in ("unverified", "rehearsed"):  # of a start that was killed
                shutil.rmtree(draft.with_name(f"{kind}-{draft.name.partition('-')[2]}"), ignore_errors=True)
            save_model(engine.policy, state, tokenizer, start, draft, card)
            write_probe(draft / PROBE_FILE, examples, live, TOLERANCE[engine.arithmetic])
            difference = verify(draft, draft / PROBE_FILE, engine.run.model)
            (draft / PROBE_FILE).unlink()
            take(draft)
        except Exception as error:  # one of ours, of the system, or of the library that wrote the file
            failure = error if isinstance(error, RunError) else _unsaved(draft, error)
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
