"""Measure prefopt at scale: `python scripts/bench_scale.py data --pairs 1000000`. Prints a table and writes JSON."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.bench import data

COMMANDS = {"data": data}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
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
