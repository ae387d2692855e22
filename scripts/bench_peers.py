"""Train prefopt and TRL on the same rows, side by side, and compare speed, memory and losses.

    python scripts/bench_peers.py [--sets hh qa chat] [--methods dpo orpo simpo] [--repeats 3] [--trl FOLDER]

Both tools train the same model on the same rows in the same order with the same optimiser and the same pairs a step, in
processes of their own, in alternation. TRL runs with micro-batches of one pair (it pads least then) and of all pairs of
a step, without gradient checkpointing (its default, which is slower), and for DPO with the reference live and computed
first. The table compares with its fastest and with the whole step at once. Losses of every step must agree to 1e-4
(float32). Prints a table and writes JSON; exits 1 where losses differ.

TRL comes with the extra `bench`, or lies in the folder that --trl names; it is no dependency of prefopt.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from bench.job import Job, Result
from bench.llama import SHAPES, make_model, texts_of_all_sets
from bench.matrix_rate import floor_operations
from bench.pair_rows import SETS, PairRow, take
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
LOSSES = {
    "dpo": ["loss=dpo"],
    "orpo": ["loss=orpo", "loss.nll_over=sequence"],  # as TRL's
    "simpo": ["loss=simpo"],
}
PAIRS = {"qa": 4, "chat": 4}
"""Pairs a step, where not 8."""


class Tool(NamedTuple):
    """A way to train. peer: TRL's settings, None for prefopt. has_same_loss: see `peers`."""

    name: str
    peer: dict[str, Any] | None
    has_same_loss: bool = True


def peers(method: str, pairs: int) -> list[Tool]:
    """TRL's configurations. Its ORPO averages the NLL of each micro-batch, so that only the whole step has our loss."""
    found = []
    for size in (1, pairs):
        same = method != "orpo" or size == pairs
        settings = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": pairs // size,
            "gradient_checkpointing": False,
        }
        found.append(Tool(f"TRL, micro-batches of {size}", settings, same))
        if method == "dpo" and size == 1:
            settings = {**settings, "precompute_ref_log_probs": True, "precompute_ref_batch_size": size}
            found.append(Tool(f"TRL, micro-batches of {size}, reference first", settings, same))
    return found


def main() -> int:
    arguments = _arguments()
    console = Console()
    work = Path(tempfile.mkdtemp(prefix="bench-peers-"))
    try:
        bench = Bench(arguments, work, console)
        found = [bench.case(name, method) for name in arguments.sets for method in arguments.methods]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report = {"machine": _machine(arguments), "cases": found}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=1))
    for table in _tables(found):
        console.print(table)
    if arguments.plot:
        _plot(found, Path(arguments.plot))
    worst = max(case["largest_loss_difference"] for case in found)
    console.print(f"largest difference of a step's loss: {worst:.1e}")
    return int(worst > 1e-4 and arguments.dtype == "float32")


class Bench:
    """What the cases have in common: the model, the folder, how a tool is started."""

    def __init__(self, arguments: argparse.Namespace, work: Path, console: Console) -> None:
        from transformers import AutoTokenizer

        self.arguments, self.work, self.console = arguments, work, console
        self.model = work / "model"
        make_model(self.model, SHAPES[arguments.model], texts_of_all_sets())
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)

    def case(self, name: str, method: str) -> dict[str, Any]:
        """One set with one method: every tool, `repeats` times in turn."""
        pairs = self.arguments.pairs or PAIRS.get(name, 8)
        rows = take(name, pairs * self.arguments.steps, self.arguments.longest, self.tokenizer)
        folder = self.work / f"{name}-{method}"
        folder.mkdir()
        _write(folder / "rows.jsonl", [(str(i), row) for i, row in enumerate(rows)])
        ours = Tool("prefopt", None)
        results: dict[str, list[Result]] = {}
        for repeat in range(self.arguments.repeats):
            for tool in [ours, *([] if self.arguments.alone else peers(method, pairs))]:
                if repeat and tool.peer is not None and not self._is_fast(results, tool):
                    continue  # one run showed that it is not TRL's best
                result = self._run(folder, tool, method, pairs, f"{tool.name}-{repeat}".replace(" ", "_"))
                results.setdefault(tool.name, []).append(result)
                if tool.peer is None and repeat == 0:  # TRL reads the rows in the order in which prefopt draws them
                    places = [int(row.rsplit(":", 1)[1]) - 1 for row in result.order]
                    _write(folder / "ordered.jsonl", [(str(i), rows[i]) for i in places])
        return self._summary(name, method, pairs, rows, results)

    def _is_fast(self, results: dict[str, list[Result]], tool: Tool) -> bool:
        seconds = {name: _seconds(found[0]) for name, found in results.items() if name != "prefopt"}
        return seconds[tool.name] <= 1.1 * min(seconds.values())

    def _run(self, folder: Path, tool: Tool, method: str, pairs: int, label: str) -> Result:
        own = folder / label
        own.mkdir()
        arguments = self.arguments
        rows = folder / ("rows.jsonl" if tool.peer is None else "ordered.jsonl")
        job = Job(
            folder=str(own),
            model=str(self.model),
            rows=str(rows),
            method=method,
            pairs_per_step=pairs,
            num_steps=arguments.steps,
            lr=1e-5,
            threads=arguments.threads,
            has_reference=method == "dpo",
            overrides=[
                *LOSSES[method],
                f"model.path={self.model}",
                f"data.train=[{{path: {rows}}}]",
                f"data.max_length={arguments.longest}",
                f"train.batch_size={pairs}",
                f"train.tokens_per_micro_batch={arguments.tokens}",
                f"train.max_steps={arguments.steps}",
                "train.eval_every=never",
                "train.save_every=never",
                f"train.autocast={'bf16' if arguments.dtype == 'bf16' else 'none'}",
                "optim.lr=1e-5",
                "optim.schedule=constant",
                "optim.warmup_ratio=0",
                "optim.weight_decay=0",
                "optim.betas=[0.9,0.999]",
                f"launch.device={arguments.device}",
                *_adapters(arguments.lora_rank),
            ],
            peer=tool.peer or {},
            dtype=arguments.dtype,
            device=arguments.device,
            lora_rank=arguments.lora_rank,
            shape=arguments.model,
            tokens=arguments.tokens,
        )
        job.write(own / "job.json")
        module = "bench.with_prefopt" if tool.peer is None else "bench.with_trl"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), str(HERE.parent), arguments.trl])),
            "OMP_NUM_THREADS": str(arguments.threads),
            "OMP_WAIT_POLICY": "passive",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", module, str(own / "job.json"), str(own / "result.json")]
        with open(own / "log", "w", encoding="utf-8") as log:
            code = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode
        if code:
            raise RuntimeError(f"{tool.name} on {folder.name} ended with {code}:\n{(own / 'log').read_text()[-3000:]}")
        result = Result.read(own / "result.json")
        self.console.print(f"{folder.name}: {tool.name}: {_seconds(result):.2f} s a step, {result.peak / 1e9:.2f} GB")
        shutil.rmtree(own / "run", ignore_errors=True)
        return result

    def _summary(self, name: str, method: str, pairs: int, rows: list[PairRow], results: dict) -> dict[str, Any]:
        ours = results["prefopt"]
        same = {tool.name for tool in peers(method, pairs) if tool.has_same_loss}
        differences = [0.0] + [
            abs(a.loss - b.loss)
            for tool, found in results.items()
            if tool in same
            for result in found
            for a, b in zip(ours[0].steps, result.steps, strict=True)
        ]
        best = min(
            (tool for tool in results if tool != "prefopt"), key=lambda t: _median(results[t]), default="prefopt"
        )
        lengths = [[len(self.tokenizer(text).input_ids) for text in row] for row in rows]
        shape = SHAPES[self.arguments.model]
        floor = floor_operations(shape, lengths, method == "dpo")
        tools = {tool: _tool(found, pairs) for tool, found in results.items()}
        return {
            "set": name,
            "method": method,
            "dtype": self.arguments.dtype,
            "pairs_per_step": pairs,
            "mean_tokens": [round(statistics.mean(column)) for column in zip(*lengths, strict=True)],
            "tools": tools,
            "best_peer": best,
            "whole_step_peer": f"TRL, micro-batches of {pairs}",
            "speed_ratio": tools["prefopt"]["pairs_per_second"] / tools[best]["pairs_per_second"],
            "memory_ratio": tools["prefopt"]["peak_bytes"] / tools[best]["peak_bytes"],
            "matrix_rate": statistics.median(result.matrix_rate for result in ours),
            "floor_share": statistics.median(_floor_share(result, floor) for result in ours),
            "largest_loss_difference": max(differences),
        }


def _adapters(rank: int) -> list[str]:
    lora = f"{{r: {rank}, alpha: {2 * rank}, dropout: 0, target_modules: all-linear, base: plain}}"
    return ["model.dtype=bfloat16", f"model.lora={lora}"] if rank else []


def _seconds(result: Result) -> float:
    """Seconds a step, the reference's share included; the first step warms up and is left out."""
    return statistics.median(s.seconds for s in result.steps[1:]) + result.reference_seconds / len(result.steps)


def _floor_share(result: Result, floor: float) -> float:
    """What the operations that cannot be done without would take, as a share of what the steps took.

    floor: operations of all rows. The first step is left out, its share of the operations by its tokens.
    """
    measured = result.steps[1:]
    share = sum(step.tokens for step in measured) / sum(step.tokens for step in result.steps)
    seconds = sum(step.seconds for step in measured) + share * result.reference_seconds
    return share * floor / result.matrix_rate / seconds


def _median(results: list[Result]) -> float:
    return statistics.median(map(_seconds, results))


def _tool(results: list[Result], pairs: int) -> dict[str, Any]:
    """Medians over the repeats, and the range of the speed."""
    speeds = sorted(pairs / _seconds(result) for result in results)
    steps = [step for result in results for step in result.steps[1:]]
    return {
        "pairs_per_second": statistics.median(speeds),
        "slowest_and_fastest": [speeds[0], speeds[-1]],
        "repeats": len(results),
        "reference_seconds_a_step": statistics.median(r.reference_seconds / len(r.steps) for r in results),
        "processor_seconds_per_pair": statistics.median(s.processor_seconds for s in steps) / pairs,
        "tokens_per_step": statistics.mean(step.tokens for step in steps),
        "padding": statistics.mean(result.padding for result in results),
        "peak_bytes": statistics.median(result.peak for result in results),
        "losses": [step.loss for step in results[0].steps],
    }


def _tables(cases: list[dict[str, Any]]) -> Iterator[Table]:
    """One table for each case: a row for each way to train."""
    for case in cases:
        lengths = " / ".join(map(str, case["mean_tokens"]))
        table = Table(title=f"{case['set']} ({lengths} tokens), {case['method']}, {case['dtype']}")
        for column in ("", "pairs/s", "range", "CPU s/pair", "peak GB", "padding", "prefopt is", "with memory"):
            table.add_column(column)
        ours = case["tools"]["prefopt"]
        for name, tool in case["tools"].items():
            table.add_row(
                name + (" (its fastest)" if name == case["best_peer"] else ""),
                f"{tool['pairs_per_second']:.3f}",
                " - ".join(f"{speed:.3f}" for speed in tool["slowest_and_fastest"]),
                f"{tool['processor_seconds_per_pair']:.2f}",
                f"{tool['peak_bytes'] / 1e9:.2f}",
                f"{tool['padding']:.0%}",
                f"{ours['pairs_per_second'] / tool['pairs_per_second']:.2f} times as fast",
                f"{ours['peak_bytes'] / tool['peak_bytes']:.2f}",
            )
        table.caption = (
            f"prefopt runs at {case['floor_share']:.0%} of {case['matrix_rate'] / 1e9:.0f} GFLOP/s;"
            f" losses differ by {case['largest_loss_difference']:.0e} at most"
        )
        yield table


def _plot(cases: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(cases), figsize=(2.6 * len(cases), 5), squeeze=False)
    for column, case in enumerate(cases):
        names = list(case["tools"])
        colours = ["tab:blue" if name == "prefopt" else "tab:grey" for name in names]
        labels = [name.replace("TRL, micro-batches of ", "TRL ").replace(", reference", "\nref.") for name in names]
        for row, (key, unit, title) in enumerate((("pairs_per_second", 1, "pairs/s"), ("peak_bytes", 1e9, "peak GB"))):
            axes[row][column].bar(labels, [case["tools"][name][key] / unit for name in names], color=colours)
            axes[row][column].set(title=f"{case['set']}, {case['method']}" if row == 0 else "", ylabel=title)
            axes[row][column].tick_params(axis="x", labelsize=7)
    figure.tight_layout()
    figure.savefig(path)


def _write(path: Path, rows: list[tuple[str, PairRow]]) -> None:
    lines = (json.dumps({"id": name, **row._asdict()}) + "\n" for name, row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _machine(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("torch", "transformers", "accelerate")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "trl": None if arguments.alone else _trl_version(arguments.trl),
        "model": arguments.model,
        "steps": arguments.steps,
        "repeats": arguments.repeats,
    }


def _trl_version(folder: str | None) -> str:
    if folder is None:
        return version("trl")
    return next(Path(folder).glob("trl-*.dist-info")).name.removeprefix("trl-").removesuffix(".dist-info")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alone", action="store_true", help="prefopt only: its speed, memory and share of the floor")
    parser.add_argument("--trl", help="a folder with TRL; default: the installed one")
    parser.add_argument("--sets", nargs="+", default=["hh", "qa", "chat"], choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=["dpo", "orpo", "simpo"], choices=list(LOSSES))
    parser.add_argument("--dtype", default="float32", choices=["float32", "bf16"])
    parser.add_argument("--model", default="28m", choices=list(SHAPES))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--lora-rank", type=int, default=0, help="adapters over bfloat16 weights; 0: all weights")
    parser.add_argument("--pairs", type=int, help="pairs a step; default: 8, and 4 for qa and chat")
    parser.add_argument("--steps", type=int, default=5, help="optimiser steps of each run, the first to warm up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--longest", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--tokens", type=int, default=1024, help="train.tokens_per_micro_batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", help="where the figures go")
    parser.add_argument("--plot", help="where the plot goes (.svg or .png); needs matplotlib")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
