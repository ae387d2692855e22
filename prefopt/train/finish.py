"""The end of a run: a model folder that has been reloaded and compared before it gets its name; and its rehearsal."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from prefopt.durable import publish, sync_tree
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

    Every rank must call. Raises: RunError where the reloaded model differs; the folder then keeps a name of its own.
    """
    draft = folder.with_name(f"unverified-{folder.name}")
    difference = _write_and_verify(engine, tokenizer, start, rows, draft, card)
    if engine.is_main:
        sync_tree(draft)
        shutil.rmtree(folder, ignore_errors=True)
        publish(draft, folder)
    engine.barrier()
    return difference


def rehearse(engine: Engine, tokenizer: PreTrainedTokenizerBase, start: Path, rows: Rows, folder: Path) -> float:
    """Save, verify in a fresh process and delete again, so that what cannot be saved is known early; the difference.

    A fault in saving (adapters that come out empty, a head that is not tied) shows with any trained weights. Every rank
    must call; training goes on after it. Raises: RunError where the reloaded model differs.
    """
    draft = folder.with_name(f"rehearsed-{folder.name}")
    difference = _write_and_verify(engine, tokenizer, start, rows, draft, card="")
    engine.module.train()
    if engine.is_main:
        shutil.rmtree(draft)
    engine.barrier()
    return difference


def _write_and_verify(
    engine: Engine, tokenizer: PreTrainedTokenizerBase, start: Path, rows: Rows, draft: Path, card: str
) -> float:
    # What is read and not predicted in training is predicted here: a probe knows whole responses only.
    examples = [replace(rows[p], given=None) for p in range(min(2, len(rows)))]
    engine.module.eval()
    with torch.no_grad():
        batch = pack(examples, rows.share_prompts, whole_responses=rows.whole_responses).to(engine.device)
        live = engine(batch)
    state = engine.gathered_state()
    difference = 0.0
    if engine.is_main:
        for left in draft.parent.glob(f"*-{draft.name.partition('-')[2]}"):  # of a start that was killed
            shutil.rmtree(left)
        save_model(engine.policy, state, tokenizer, start, draft, card)
        write_probe(draft / PROBE_FILE, examples, live, TOLERANCE[engine.arithmetic])
        difference = verify(draft, draft / PROBE_FILE, engine.run.model)
        (draft / PROBE_FILE).unlink()
    return difference
