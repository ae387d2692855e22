"""The command `prefopt eval`: what is measured first, then the folder, then the processes that measure.

Everything that can be refused is refused before a folder exists. A folder that is there goes on where it was; one that
is done is shown again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt import __version__, durable
from prefopt.console import PLAIN, print_table
from prefopt.disk import unwritten, write_whole
from prefopt.durable import clear_drafts
from prefopt.errors import UserError
from prefopt.eval_config import EvalComposition, deciding
from prefopt.evaluate.folder import FIGURES, MANIFEST, SETTINGS, read_figures
from prefopt.evaluate.measure import HasUnits, ReadsFiles, SharesWork, unit_of
from prefopt.evaluate.registry import make_measure
from prefopt.evaluate.settings import EvalSettings
from prefopt.evaluate.trained import open_trained
from prefopt.lock import locked
from prefopt.manifest import start_record
from prefopt.model.files import fingerprint_of, model_folder
from prefopt.pairs.called import called, own_words
from prefopt.run_folder import LOCK, read_json
from prefopt.stage_config import differing
from prefopt.workers import Workers, devices_of, stoppable

if TYPE_CHECKING:
    from rich.console import Console

_OURS = (SETTINGS, LOCK)
"""What a start writes before the manifest."""


def make_eval(
    composition: EvalComposition, words: list[str], console: Console, dry_run: bool = False, as_json: bool = False
) -> int:
    """Measure, or go on with, the folder of these settings; the exit code.

    words: the command line, for the manifest. dry_run: check all of it and write nothing. as_json: print figures.json.

    Raises: UserError or RunError for what keeps it from starting; then nothing new is left behind. UserError with exit
        code 75 where a signal asked it to stop.
    """
    with stoppable(), own_words():
        code = _make(composition.settings, words, console, dry_run)
        if code == 0 and not dry_run:
            _show(composition.settings, console, as_json)
        return code


def _make(settings: EvalSettings, words: list[str], console: Console, dry_run: bool) -> int:
    path, measure = Path(settings.out), make_measure(settings.measure)
    settings, model = _resolved(settings, measure.uses)
    named = {"model": model, "reference": settings.reference, "reward": settings.reward}
    about = {
        # A model is what its content is, wherever it lies.
        "settings": {key: value for key, value in deciding(settings).items() if key not in named},
        "models": {key: _fingerprint(key, where) for key, where in named.items() if where},
        "files": _digests(measure.files) if isinstance(measure, ReadsFiles) else {},
    }
    if _is_done(path, about):
        return 0
    if dry_run:
        what = f"of {model}" if model else "of files"
        console.print(f"prefopt: {path}: measure={settings.measure['name']} {what}; nothing is written", **PLAIN)
        return 0
    try:
        durable.make_folder(path)
    except OSError as error:
        raise unwritten(path, error, "out") from None
    with _nothing_left_of_nothing(path), locked(path):
        if _is_done(path, about):
            return 0
        clear_drafts(path, below=True)
        if not (path / MANIFEST).exists():
            started = start_record(["prefopt", "eval", *words], {"version": __version__})
            manifest = {**about, "paths": {"run": settings.run, **named}, "start": started}
            write_whole(path / SETTINGS, json.dumps(asdict(settings), indent=2, ensure_ascii=False) + "\n", "out")
            write_whole(path / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "out")
        return _measure(path, settings, model, isinstance(measure, SharesWork))


@contextmanager
def _nothing_left_of_nothing(path: Path) -> Iterator[None]:
    """A folder in which nothing was measured goes again, whatever kept it from that: only the measure itself can tell
    that a set has no pairs, or a model no weights."""
    try:
        yield
    finally:
        with suppress(OSError):  # of another start's lock, or of a disk that fails
            if {entry.name for entry in path.iterdir()} <= {SETTINGS, MANIFEST}:
                for name in (MANIFEST, SETTINGS):
                    (path / name).unlink(missing_ok=True)
                path.rmdir()


def _resolved(settings: EvalSettings, uses: frozenset[str]) -> tuple[EvalSettings, str]:
    """The settings with what a run says, as far as the measure looks at it, and the model that is measured.

    Raises: UserError for a run that is not done, and for `demo://` that there is not.
    """
    from prefopt.pairs.places import real

    settings = replace(
        settings,
        reference=real(settings.reference, "reference"),
        reward=real(settings.reward, "reward"),
    )
    if not settings.run:
        return settings, real(settings.model, "model")
    trained = open_trained(settings.run)
    if "reference" in uses and not settings.reference:
        reference, revision = trained.reference
        settings = replace(settings, reference=str(model_folder(reference, revision)) if revision else reference)
    return settings, trained.model if "model" in uses else ""


def _fingerprint(key: str, where: str) -> str:
    """The sha256 of a model. key: the setting that names it, for messages."""
    with called(key):
        return fingerprint_of(where)


def _digests(files: Mapping[str, str]) -> dict[str, str]:
    """The sha256 of each file, or of all files of a folder. What is neither is the measure's to speak of."""
    found = {}
    for name, named in files.items():
        path = Path(named).expanduser()
        parts = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        digest = hashlib.sha256()
        for part in parts:
            if not part.is_file():
                continue
            with open(part, "rb") as content:
                digest.update(part.name.encode() + hashlib.file_digest(content, "sha256").digest())
        found[name] = digest.hexdigest()
    return found


def _is_done(path: Path, about: Mapping[str, Any]) -> bool:
    """Whether the folder is done. Changes nothing.

    Raises: UserError where it belongs to something else, with what differs.
    """
    if not path.exists():
        return False
    if not path.is_dir():
        raise UserError(f"{path} is a file, not a folder", "another place: out=FOLDER")
    found = read_json(path / MANIFEST, "out")
    if found is None:
        foreign = sorted(p.name for p in path.iterdir() if p.name not in _OURS and not p.name.startswith("."))
        if foreign:
            raise UserError(f"{path} is no folder of prefopt eval: it holds {foreign[0]}", "another place: out=FOLDER")
        return False
    if not all(isinstance(found.get(key), dict) for key in about):
        raise UserError(
            f"{path} is no folder of prefopt eval: its {MANIFEST} is another's", "another place: out=FOLDER"
        )
    if lines := differing({key: found[key] for key in about}, about):
        raise UserError(
            f"{path} holds another evaluation; it is left as it is. What differs (there -> here):\n  "
            + "\n  ".join(lines),
            "another place: out=FOLDER",
        )
    return (path / FIGURES).exists()


def _measure(path: Path, settings: EvalSettings, model: str, is_shared: bool) -> int:
    """Processes that share the work, where there are several, and one that measures; the exit code of one that failed.

    Raises: RunError where one was killed; UserError with exit code 75 where a signal stopped them.
    """
    devices = devices_of(settings.device, settings.num_processes if is_shared else 1)
    told = json.dumps({"settings": asdict(settings), "model": model}, ensure_ascii=False)
    count = len(devices.names)
    for part in ("work", "measure") if count > 1 else ("measure",):
        with Workers() as workers:
            for number, device in enumerate(devices.names if part == "work" else devices.names[:1]):
                command = [sys.executable, "-m", "prefopt.evaluate", part, str(path), str(number), str(count), device]
                workers.start(command, told, devices.environment)
            code = workers.wait()
        if code:
            return code
    return 0


def _show(settings: EvalSettings, console: Console, as_json: bool) -> None:
    """The figures on stdout: a table, or as they are kept."""
    from rich.markup import escape
    from rich.table import Table

    path, measure = Path(settings.out), make_measure(settings.measure)
    units = measure.units if isinstance(measure, HasUnits) else {}
    if as_json:
        print((path / FIGURES).read_text(encoding="utf-8"), end="")
        return
    found = read_figures(path) or {}
    table = Table(title=escape(f"{found['name']} ({path})"), title_justify="left")
    table.add_column("figure", overflow="fold")
    for column in ("value", "95 % interval", "count"):
        table.add_column(column, justify="right")
    if units:
        table.add_column("unit")
    group = ""
    for name, figure in found["figures"].items():
        first, _, rest = name.partition("/")
        if rest and first != group:  # a heading takes the set's name out of every line: they are long
            group = first
            table.add_section()
            table.add_row(f"[bold]{escape(first)}[/bold]")
        low, high = figure["low"], figure["high"]
        interval = "" if low is None or high is None else f"{low:.4g} to {high:.4g}"
        shown = f"  {rest}" if rest else name
        unit = [unit_of(name, units)] if units else []
        table.add_row(escape(shown), f"{figure['value']:.4g}", interval, str(figure["count"]), *unit)
    print_table(console, table)
    for reason, count in found["left_out"].items():
        console.print(f"left out: {count} {reason}", **PLAIN)
    for note in found["notes"]:
        console.print(note, **PLAIN)
