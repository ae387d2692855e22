"""What pip would install today, beside constraints.txt: `python scripts/resolve_weekly.py --write newest.txt`.

pip resolves with metadata alone and installs nothing. --test makes an environment of what was written and runs the
quick tests in it; that downloads some gigabytes. Exit code 1 where something is newer, or a test fails, so that a
weekly job shows it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def pinned(text: str) -> dict[str, str]:
    """Name to version of the lines NAME==VERSION of a constraints file, names as PEP 503 spells them."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", text, re.M)
    return {normal(name): version for name, version in found}


def normal(name: str) -> str:
    """A package's name in the one spelling that pip compares."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(extras: str) -> dict[str, str]:
    """Name to version of everything that pip would install for the repository with these extras."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    done = subprocess.run([*pip, f"{ROOT}[{extras}]"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pip finds no set of versions:\n{done.stderr.strip()}")
    installs = json.loads(done.stdout)["install"]
    return {normal(one["metadata"]["name"]): one["metadata"]["version"] for one in installs}


def changes(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """A line for each package whose version differs, is new, or is not needed any more."""
    names = sorted(old.keys() | new.keys())
    return [
        f"{name}: {old.get(name, 'not pinned')} -> {new.get(name, 'not needed')}"
        for name in names
        if old.get(name) != new.get(name) and name != "prefopt"
    ]


def quick_tests(constraints: Path, extras: str) -> int:
    """The exit code of the quick tests in an environment of its own with these versions."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints]
        subprocess.run([*pip, "--editable", f"{ROOT}[{extras}]"], check=True)
        return subprocess.run([python, "-m", "pytest", "-m", "not slow and not gpu"], cwd=ROOT, check=False).returncode


def main() -> int:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", default="dev")
    parser.add_argument("--write", type=Path, help="the versions, as a constraints file")
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    if options.test and options.write is None:
        parser.error("--test installs what --write has written")
    found = resolve(options.extras)
    differs = changes(pinned((ROOT / "constraints.txt").read_text(encoding="utf-8")), found)
    print("\n".join(differs) or "constraints.txt has the newest versions")
    if options.write:
        lines = [f"{name}=={version}\n" for name, version in sorted(found.items()) if name != "prefopt"]
        options.write.write_text("".join(lines), encoding="utf-8")
    failed = quick_tests(options.write, options.extras) if options.test else 0
    return 1 if differs or failed else 0


if __name__ == "__main__":
    sys.exit(main())
