"""Peak memory of one step against sequence length, vocabulary and responses per prompt.

    python scripts/bench_memory.py [--json FILE] [--plot FILE]

Each figure is a process of its own that runs forward and backward of one micro-batch (28M-parameter Llama, float32, on
a CPU): bytes resident at the peak above those before the step. `shared` is what prefopt runs; `padded` repeats the
prompt for each response and pads; `whole` holds all logits at once. The three ways differ in nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from bench.one_step import Spec
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
BASE = Spec()
SWEEPS = {
    "prompt tokens": [BASE._replace(prompt=n) for n in (128, 512, 1024, 2048)],
    "vocabulary": [BASE._replace(vocabulary=n) for n in (8192, 32_768, 131_072)],
    "responses per prompt": [BASE._replace(k=n) for n in (2, 4, 8)],
}
AXES = {"prompt tokens": "prompt", "vocabulary": "vocabulary", "responses per prompt": "k"}
WAYS = {
    "shared, head in chunks": {"layout": "shared", "head": "chunked"},
    "shared, whole head": {"layout": "shared", "head": "whole"},
    "padded, prompt repeated, whole head": {"layout": "padded", "head": "whole"},
}


def main() -> None:
    arguments = _arguments()
    console = Console()
    found = []
    for sweep, specs in SWEEPS.items():
        table = Table(
            "way", *(f"{AXES[sweep]}={getattr(s, AXES[sweep])}" for s in specs), title=f"peak MB against {sweep}"
        )
        for way, settings in WAYS.items():
            results = [_measure(spec._replace(**settings, threads=arguments.threads)) for spec in specs]
            found += [
                {"sweep": sweep, "way": way, "value": getattr(s, AXES[sweep]), **r}
                for s, r in zip(specs, results, strict=True)
            ]
            table.add_row(way, *(f"{r['peak_bytes'] / 1e6:.0f} ({r['seconds']:.1f} s)" for r in results))
        console.print(table)
    console.print("in brackets: CPU seconds of forward and backward, one run")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"base": BASE._asdict(), "figures": found}, indent=1))
    if arguments.plot:
        _plot(found, Path(arguments.plot))


def _measure(spec: Spec) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    environment |= {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(spec.threads)}
    command = [sys.executable, "-m", "bench.one_step", json.dumps(spec._asdict())]
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    if said.returncode:
        raise RuntimeError(f"{spec} ended with {said.returncode}: {said.stderr[-2000:]}")
    return json.loads(said.stdout.splitlines()[-1])


def _plot(found: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(SWEEPS), figsize=(4 * len(SWEEPS), 3.2))
    for axis, sweep in zip(axes, SWEEPS, strict=True):
        for way in WAYS:
            points = [(f["value"], f["peak_bytes"] / 1e9) for f in found if f["sweep"] == sweep and f["way"] == way]
            axis.plot(*zip(*points, strict=True), marker="o", label=way)
        axis.set(xlabel=sweep, ylabel="peak above the model, GB", ylim=0)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", help="where the figures go")
    parser.add_argument("--plot", help="where the plot goes (.svg or .png); needs matplotlib")
    return parser.parse_args()


if __name__ == "__main__":
    main()
