"""What `prefopt plan` says beside what `prefopt train` takes: memory, speed and disk, on this machine's CPU.

    python scripts/check_plan.py [--json FILE] [--cases NAME ...]

Each case is a real run in processes of its own: 2 steps of a 28M-parameter Llama on synthetic rows. Memory: resident
bytes of rank 0 at the peak of its life, minus those of the same run with a model of next to nothing (the libraries,
and logits of the same vocabulary); beside the same difference of plans. Speed: that of the second step.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.llama import SHAPES, Shape, make_model
from bench.pair_rows import mix
from rich.console import Console
from rich.table import Table

from prefopt.cli import main as main_of_prefopt

HERE = Path(__file__).resolve().parent
MIB = 2**20

LORA = "model.lora={r: 16}"
BF16 = "model.dtype=bfloat16"
TWO = "launch.num_processes=2"
CASES: dict[str, tuple[str, ...]] = {
    "float32": (),
    "float32, every layer again": ("model.checkpoint_every=1",),
    "float32, every second layer again": ("model.checkpoint_every=2",),
    "float32, adapters": (LORA,),
    "float32, adapters, every layer again": (LORA, "model.checkpoint_every=1"),
    "float32, autocast": ("train.autocast=bf16",),
    "bfloat16, masters": (BF16,),
    "bfloat16, stochastic": (BF16, "optim.bfloat16_weights=stochastic"),
    "bfloat16, adapters": (BF16, LORA),
    "float32, adafactor": ("optim=adafactor",),
    "float32, reference (dpo)": ("loss=dpo",),
    "float32, large vocabulary": ("model.path=BED/large",),
    "2 ranks, DDP": (TWO,),
    "2 ranks, ZeRO-1": (TWO, "deepspeed=zero1"),
    "2 ranks, ZeRO-2": (TWO, "deepspeed=zero2"),
    "2 ranks, ZeRO-3": (TWO, "deepspeed=zero3"),
    "2 ranks, ZeRO-2, bfloat16": (TWO, "deepspeed=zero2", BF16),
    "2 ranks, ZeRO-3, bfloat16": (TWO, "deepspeed=zero3", BF16),
    "2 ranks, ZeRO-3, every layer again": (TWO, "deepspeed=zero3", "model.checkpoint_every=1"),
}
MAPPED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Tensors in pages of their own, which go back when they are freed: else holes in the C library's heap count too."""
STEPS, PAIRS = 2, 4
NOTHING = Shape(16, 16, 1, 1, 1, 8192, True)


def main() -> None:
    arguments = _arguments()
    found: dict[str, dict[str, Any]] = {}
    bases: dict[tuple[str, ...], tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="check-plan-") as folder:
        bed = Path(folder)
        _make_bed(bed)
        for number, name in enumerate(arguments.cases or CASES):
            overrides = tuple(o.replace("BED", str(bed)) for o in CASES[name])
            engine = tuple(o for o in overrides if o.startswith(("launch.", "deepspeed=")) or o == LORA)
            if engine not in bases:
                words = (*engine, f"model.path={bed}/nothing")
                peak = _train(bed, f"base-{len(bases)}", words)["peak"]
                bases[engine] = (_plan(bed, words)["memory"]["train"]["total"], peak)
            planned, measured = _plan(bed, overrides), _train(bed, f"run-{number}", overrides)
            memory = planned["memory"]["train"]
            found[name] = {
                "planned_memory": memory["total"] - bases[engine][0],
                "measured_memory": measured["peak"] - bases[engine][1],
                "planned_tokens_per_second": planned["step"]["tokens_per_second"],
                "measured_tokens_per_second": measured["tokens_per_second"],
                "planned_checkpoint": planned["disk"]["checkpoint"],
                "measured_checkpoint": measured["checkpoint"],
                "planned_model": planned["disk"]["model"],
                "measured_model": measured["model"],
                "parts": memory,
            }
            print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1))
    _print(found)


def _make_bed(bed: Path) -> None:
    """Three models with one tokenizer, and rows with prompts around 250 words and answers around 60."""
    rows = mix(250, 60, STEPS * PAIRS, seed=3)
    texts = [text for row in rows for text in row]
    shapes = {"model": SHAPES["28m"], "large": SHAPES["28m"]._replace(vocabulary=65_536), "nothing": NOTHING}
    for name, shape in shapes.items():
        make_model(bed / name, shape, texts)
    (bed / "rows.jsonl").write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows), encoding="utf-8")


def _overrides(bed: Path, overrides: tuple[str, ...]) -> list[str]:
    return [
        *(
            f"model.path={bed / 'model'}",
            f"data.train=[{{path: {bed / 'rows.jsonl'}}}]",
            f"data.cache_dir={bed / 'cache'}",
        ),
        *("data.eval={}", "loss=simpo", f"train.batch_size={PAIRS}", "train.tokens_per_micro_batch=1536"),
        *("train.eval_every=never", "launch.device=cpu", "launch.threads_per_process=1", *overrides),
    ]


def _plan(bed: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main_of_prefopt(["plan", *_overrides(bed, overrides), "--gpu", "cpu", "--json"])
    if code:
        raise RuntimeError(f"prefopt plan ended with {code}")
    return json.loads(said.getvalue())


def _train(bed: Path, name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    folder = bed / name
    _run(["train", *_overrides(bed, overrides), f"dir={folder}"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (checkpoint,) = (folder / "checkpoints").iterdir()
    return {
        "peak": max(line["peak_memory_bytes"] for line in lines),
        "tokens_per_second": lines[-1]["tokens_per_second"],
        "checkpoint": sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file()),
        "model": sum(file.stat().st_size for file in (folder / "model").glob("*.safetensors")),
    }


def _run(words: list[str]) -> None:
    environment = {**os.environ, **MAPPED, "PYTHONPATH": str(HERE.parent), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-m", "prefopt.cli", *words], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(words)} ended with {done.returncode}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
        )


def _print(found: dict[str, dict[str, Any]]) -> None:
    table = Table(title="planned / measured (error)")
    for column in ("case", "memory, MiB", "tokens/s", "checkpoint, MiB", "model, MiB"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for name, one in found.items():
        table.add_row(
            name,
            _pair(one["planned_memory"], one["measured_memory"], MIB),
            _pair(one["planned_tokens_per_second"], one["measured_tokens_per_second"], 1),
            _pair(one["planned_checkpoint"], one["measured_checkpoint"], MIB),
            _pair(one["planned_model"], one["measured_model"], MIB),
        )
    Console(width=130).print(table)


def _pair(planned: float, measured: float, unit: float) -> str:
    return f"{planned / unit:,.0f} / {measured / unit:,.0f} ({planned / measured - 1:+.0%})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--cases", nargs="+", choices=CASES, help="only these")
    return parser.parse_args()


if __name__ == "__main__":
    main()
