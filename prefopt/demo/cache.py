"""Where the demos' files lie, and how they come to be there: whole or not at all.

They lie under CACHE/demo/NAME-KEY, where KEY changes with the code that makes them. Nothing there is ever changed, so
that a file that exists is right.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from prefopt.cache import alone
from prefopt.errors import RunError, UserError, did_you_mean

SCHEME = "demo://"
DEMOS = {"manners": ("train.jsonl", "heldout.jsonl", "base")}
_MADE = re.compile(rf"[/\\]demo[/\\](?:{'|'.join(DEMOS)})-[0-9a-f]{{16}}[/\\]")


def is_demo_path(path: str) -> bool:
    """Whether a path is a `demo://` name or was made from one."""
    return path.startswith(SCHEME) or _MADE.search(path) is not None


def make(key: str, path: str, cache_dir: Path, weights: bool) -> str:
    """The real path of `demo://NAME/FILE`, made if it is not there; any other path as it is.

    key: the setting that holds the path, for messages. weights: False leaves a model without its weights.

    Raises: UserError for a name that does not exist; RunError where the file cannot be made.
    """
    if not path.startswith(SCHEME):
        return path
    name, _, file = path.removeprefix(SCHEME).partition("/")
    if name not in DEMOS:
        raise UserError(f"{key}: there is no demo {name!r} ({path})", did_you_mean(name, DEMOS))
    if file not in DEMOS[name]:
        raise UserError(f"{key}: the demo {name!r} has no file {file!r} ({path})", did_you_mean(file, DEMOS[name]))
    folder = cache_dir.expanduser().absolute() / "demo" / f"{name}-{_code_key()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file != "base":
            return str(make_once(folder / file, _write_rows))
        if weights and not (folder / "base").exists():
            with alone(folder.parent.parent, f"demo-{folder.name}-base", "pretraining the demo's base model"):
                return str(make_once(folder / "base", _pretrain))
        if weights:
            return str(folder / "base")
        return str(make_once(folder / "base_without_weights", _write_empty))
    except OSError as error:
        raise RunError(
            f"{key}: {path} cannot be made in {folder}: {error.strerror or error}",
            "check its permissions and free space",
        ) from None


def make_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """`target`, which `fill` makes where it does not exist.

    `fill` is given a path of the same name in a temporary folder beside it; what it wrote there appears by renaming. Of
    two processes that make it at once the first to finish wins.
    """
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}-", dir=target.parent, ignore_cleanup_errors=True
    ) as temporary:
        made = Path(temporary) / target.name
        fill(made)
        try:
            made.rename(target)
        except OSError:
            if not target.exists():
                raise
    return target


def _code_key() -> str:
    """16 hex digits that change with any line of the code that makes the demo, settings included."""
    digest = sha256()
    for module in ("manners.py", "base.py"):
        digest.update((Path(__file__).parent / module).read_bytes())
    return digest.hexdigest()[:16]


def _write_rows(file: Path) -> None:
    from prefopt.demo import manners

    rows = {"train.jsonl": manners.train_rows, "heldout.jsonl": manners.heldout_rows}[file.name]()
    file.write_text(manners.to_jsonl(rows), encoding="utf-8")


def _write_empty(folder: Path) -> None:
    from prefopt.demo import base

    folder.mkdir()
    base.write_empty(folder)


def _pretrain(folder: Path) -> None:
    """In another process: whoever resolves a run must not import torch. It shows its own progress and errors."""
    _write_empty(folder)
    # A passive wait, because an OpenMP thread that spins beside a busy process makes steps thirty times as slow.
    one_thread = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "prefopt.demo.base", str(folder)]
    code = subprocess.run(command, env={**os.environ, **one_thread}, check=False).returncode
    if code != 0:
        raise RunError(
            f"the demo's base model could not be pretrained (exit code {code})", "its own message stands above"
        )
