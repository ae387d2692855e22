"""Measure prefopt at scale, as JSON.

python scripts/bench_scale.py data --pairs 1000000     preparation of many rows: speed, memory, a warm start
python scripts/bench_scale.py sweep --betas 8          a sweep of DPO beside one of SimPO: the reference once
python scripts/bench_scale.py ranks --ranks 1 2        tokens per second of one, two ... CPU processes
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import psutil
from bench import data, ranks, sweep

COMMANDS = {"data": data, "sweep": sweep, "ranks": ranks}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.__doc__)
        module.add_arguments(command)
        command.add_argument("--out", type=Path, help="where the numbers go as JSON")
    given = parser.parse_args()
    load_before = psutil.getloadavg()[0]
    found = COMMANDS[given.command].run(given)
    found["machine"] = {
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "platform": platform.platform(),
        "load_before": load_before,
        "load_after": psutil.getloadavg()[0],
    }
    text = json.dumps(found, indent=1)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
