"""What `demo://` stands for: data and a base model that code makes, so that a first run needs no file and no network.

    demo://manners/train.jsonl      preference pairs to train on
    demo://manners/heldout.jsonl    pairs in a wording that training never sees
    demo://manners/base             a small pretrained model with its tokenizer

Imports nothing heavy; the model is pretrained in a process of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.demo import cache

if TYPE_CHECKING:
    from rich.console import Console

    from prefopt.settings import RunSettings, SourceSettings


def is_demo(run: RunSettings) -> bool:
    """Whether a run is judged on a demo's rows, so that `report` has something to say; before or after `resolve`."""
    return any(cache.is_demo_path(source.path) for source in run.data.eval.values())


def resolve(run: RunSettings, cache_dir: Path, weights: bool = True) -> RunSettings:
    """A copy of the run in which every `demo://` path is a real one under `cache_dir`; makes what is not there yet.

    weights: False makes a model's configuration and tokenizer, in a folder of their own, and pretrains nothing.

    Raises: UserError for a demo, or a file of one, that does not exist; RunError where it cannot be made.
    """

    def real(key: str, path: str) -> str:
        return cache.make(key, path, cache_dir, weights)

    def real_source(key: str, source: SourceSettings) -> SourceSettings:
        return replace(source, path=real(f"{key}.path", source.path))

    # Data first: a mistyped name there is told before the pretraining.
    data = replace(
        run.data,
        train=[real_source(f"data.train.{i}", source) for i, source in enumerate(run.data.train)],
        eval={name: real_source(f"data.eval.{name}", source) for name, source in run.data.eval.items()},
    )
    tokenizer, reference = run.model.tokenizer, run.model.reference
    model = replace(
        run.model,
        tokenizer=tokenizer and real("model.tokenizer", tokenizer),
        reference=reference and real("model.reference", reference),
        path=real("model.path", run.model.path),
    )
    return replace(run, data=data, model=model)


def report(run_dir: Path, console: Console) -> None:
    """Print what a finished demo run changed: measures before and after, and a few answers side by side.

    Raises: UserError where the run has left no result.json.
    """
    from prefopt.demo import before_after

    before_after.print_report(run_dir, console)
