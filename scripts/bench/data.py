"""Preparation of N synthetic HH-like pairs: tokenise, open cold and warm, plan."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.synthetic import HH, save_tokenizer, write_pairs
from bench.watch import watch

_SCRIPTS = str(Path(__file__).resolve().parents[1])
_FROM = f"import sys; sys.path[:0] = [{_SCRIPTS!r}]; from bench.data import open_once, prepare_once; "
_PREPARE = _FROM + "prepare_once(*sys.argv[1:])"
_OPEN = _FROM + "open_once(*sys.argv[1:])"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--hh", type=Path, default=HH, help="real pairs: their lengths and words are taken")
    parser.add_argument("--tokenizer", type=Path, help="a model folder; without it a byte-level BPE is trained")
    parser.add_argument("--workers", type=int, help="tokenising processes; default: as prefopt chooses")
    parser.add_argument("--folder", type=Path, help="where data and cache stay; default: nowhere")


def run(given: argparse.Namespace) -> dict[str, Any]:
    """The numbers, as JSON. Each part runs in a process of its own, so that its peak of memory is its own."""
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
        return _run(given, given.folder)
    with tempfile.TemporaryDirectory() as folder:
        return _run(given, Path(folder))


def _run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    pairs, cache = folder / "pairs.jsonl", folder / "cache"
    started = time.perf_counter()
    size = write_pairs(pairs, given.pairs, given.hh)
    seconds = time.perf_counter() - started
    tokenizer = given.tokenizer or save_tokenizer(folder / "tokenizer", pairs)
    found: dict[str, Any] = {
        "pairs": given.pairs,
        "tokenizer": str(given.tokenizer or "byte-level BPE of 8,000 pieces"),
        "made": {"seconds": seconds, "bytes": size},
    }
    arguments = [str(pairs), str(tokenizer), str(cache), str(folder), str(given.workers or 0)]
    for name, program in (("cold", _PREPARE), ("warm", _PREPARE), ("rank", _OPEN)):
        peaks = watch([sys.executable, "-c", program, *arguments], folder / f"{name}.log")
        found[name] = {**json.loads((folder / "measured.json").read_text()), "peaks": asdict(peaks)}
    found["pairs_per_second"] = given.pairs / found["cold"]["prepare_seconds"]
    found["cache_bytes"] = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    return found


def prepare_once(pairs: str, tokenizer: str, cache: str, folder: str, workers: str) -> None:
    """What `prefopt data` does in its own process, up to the description that the ranks read."""
    from prefopt.data.dataset import prepare
    from prefopt.settings import DataSettings, SourceSettings

    template = None if "chat_template" in _config(tokenizer) or _has_template(tokenizer) else "chatml"
    settings = DataSettings(
        train=[SourceSettings(path=pairs)],
        eval_size=0.001,
        max_length=1024,
        chat_template=template,
        num_workers=int(workers) or None,
        max_drop_fraction=0.5,
    )
    started = time.perf_counter()
    prepared = prepare(settings, tokenizer, frozenset({"pairs", "reference"}), Path(cache))
    seconds = time.perf_counter() - started
    (Path(folder) / "data.json").write_text(json.dumps(prepared.describe()), encoding="utf-8")
    _write(folder, {"prepare_seconds": seconds, "kept": len(prepared.train)})


def open_once(_pairs: str, _tokenizer: str, _cache: str, folder: str, _workers: str) -> None:
    """What a rank does before it has a model: open, the lengths, the plan, the first rows."""
    from prefopt.data.dataset import open_prepared
    from prefopt.data.plan import make_plan
    from prefopt.train.rows import Rows

    described = json.loads((Path(folder) / "data.json").read_text(encoding="utf-8"))
    started = time.perf_counter()
    prepared = open_prepared(described)
    opened = time.perf_counter()
    rows = Rows(prepared.train, frozenset({"pairs", "reference"}), True)
    lengths = time.perf_counter()
    plan = make_plan(rows.counts, prepared.train.sources, batch_size=128, epochs=1.0, max_steps=None, seed=42)
    planned = time.perf_counter()
    batches = rows.micro_batches(rows.cut(plan.steps[0], 2, 8192), 0)
    packed = time.perf_counter()
    _write(
        folder,
        {
            "open_seconds": opened - started,
            "lengths_seconds": lengths - opened,
            "plan_seconds": planned - lengths,
            "first_batch_seconds": packed - planned,
            "steps": len(plan),
            "micro_batches": len(batches),
        },
    )


def _config(tokenizer: str) -> str:
    file = Path(tokenizer) / "tokenizer_config.json"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _has_template(tokenizer: str) -> bool:
    return (Path(tokenizer) / "chat_template.jinja").is_file()


def _write(folder: str, measured: dict[str, Any]) -> None:
    (Path(folder) / "measured.json").write_text(json.dumps(measured), encoding="utf-8")
