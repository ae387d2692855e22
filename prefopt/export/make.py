"""Load, merge, write, let a fresh process compare, and only then give the folder its name."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.console import PLAIN
from prefopt.disk import disk_error, free_space, what_to_do
from prefopt.durable import make_folder, publish, sync_tree
from prefopt.errors import RunError, UserError
from prefopt.export.card import exported_card
from prefopt.export.gguf import convert, find_converter
from prefopt.export.push import check_push, push
from prefopt.export.settings import ExportSettings
from prefopt.export.source import Source, find_source

if TYPE_CHECKING:
    from rich.console import Console

    from prefopt.export.live import Live


def export(path: str, settings: ExportSettings, console: Console) -> int:
    """Run the command; 0.

    Raises: UserError for what cannot be exported so, before anything is loaded where that can be known; RunError where
        the copy is not the model that was trained, a disk is full or the hub refuses.
    """
    source = find_source(path, settings.step)
    script = find_converter(settings.gguf) if settings.gguf.file else None
    if settings.push is not None:
        check_push(settings.push)
    from prefopt.export.live import open_live
    from prefopt.train.quiet import quiet_libraries

    quiet_libraries()
    try:
        live = open_live(source)
    except UserError as error:  # the loader speaks of a training run's key
        raise UserError(re.sub("^model.path:", "export:", error.message), error.hint, error.exit_code) from error
    merge = _merges(settings, live, source)
    written = _write(source, settings, live, merge)
    of = "adapters merged, " if merge else "adapters, " if live.has_adapters else ""
    console.print(
        f"{source.shown} -> {settings.out}: {of}{written.dtype}; a fresh process finds the same numbers to"
        f" {written.difference:.1e} (allowed: {written.tolerance:g})",
        **PLAIN,
    )
    if script is not None:
        convert(script, Path(settings.out), Path(settings.gguf.file), console)
    if settings.push is not None:
        console.print(f"pushed to {push(Path(settings.out), settings.push, settings.private is not False)}", **PLAIN)
    return 0


@dataclass(frozen=True)
class Written:
    """dtype: of the weights. difference: what the fresh process found. tolerance: what was allowed; nats or reward."""

    dtype: str
    difference: float
    tolerance: float


def _merges(settings: ExportSettings, live: Live, source: Source) -> bool:
    """Whether adapters are merged.

    Raises: UserError where merge has no effect.
    """
    if not live.has_adapters:
        if settings.merge is not None:
            raise UserError(
                f"merge={str(settings.merge).lower()} has no effect: {source.shown} has no adapters", "leave it out"
            )
        return False
    held = source.model.base
    if settings.merge is not False and held != "plain":
        print(
            f"prefopt: the adapters were trained over weights held in {held}; merged into plain weights they give other"
            f" numbers than the run had. merge=false keeps them apart",
            file=sys.stderr,
        )
    return settings.merge is not False


def _write(source: Source, settings: ExportSettings, live: Live, merge: bool) -> Written:
    from prefopt.export.live import answers, probe_rows
    from prefopt.model.load import DTYPES
    from prefopt.model.save import PROBE_FILE, save_model, verify, write_probe
    from prefopt.settings import ModelSettings
    from prefopt.train.finish import TOLERANCE

    out = Path(settings.out)
    draft = out.with_name(f".unverified-{out.name}")
    rows = probe_rows(live)
    said = answers(live.policy, rows)
    as_adapters = live.has_adapters and not merge
    name = _dtype_name(settings.dtype, live.start)  # of adapters: that of the model which they are loaded over
    dtype = DTYPES[name]
    tolerance = TOLERANCE[dtype]
    try:
        make_folder(out.absolute().parent)
        shutil.rmtree(draft, ignore_errors=True)
        policy = live.policy if as_adapters else live.merged()
        if not as_adapters:
            model: Any = policy.model
            model.to(dtype)
        original = _original_card(source)
        save_model(policy, policy.model.state_dict(), live.tokenizer, live.start, draft, original)
        write_probe(draft / PROBE_FILE, rows, said, tolerance)
        difference = verify(draft, draft / PROBE_FILE, ModelSettings(dtype=name))
        (draft / PROBE_FILE).unlink()
        card = exported_card(original, source.shown, live.base, merge, name, difference, source.model.base)
        (draft / "README.md").write_text(card, encoding="utf-8")
        sync_tree(draft)
        if out.is_dir():
            out.rmdir()  # empty, as was checked
        publish(draft, out)
    except OSError as error:
        text, number = disk_error(error)
        shutil.rmtree(draft, ignore_errors=True)
        raise RunError(
            f"{out} cannot be written ({text or error}; {free_space(out.absolute().parent)})", what_to_do(number)
        ) from None
    except RunError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Written(name, difference, tolerance)


def _dtype_name(wanted: str, start: Path) -> str:
    """float32 or bfloat16: what was asked for, or what the files of the model under it hold."""
    if wanted != "stored":
        return wanted
    from safetensors import safe_open

    kinds: set[str] = set()
    for file in sorted(start.glob("*.safetensors")):
        with safe_open(file, framework="pt") as content:
            kinds |= {content.get_slice(key).get_dtype() for key in content.keys()}  # noqa: SIM118 - not a mapping
    return "bfloat16" if "BF16" in kinds and "F32" not in kinds else "float32"


def _original_card(source: Source) -> str:
    """The card that training wrote; one from the records of the run for a checkpoint; "" where there is none."""
    if source.is_checkpoint:
        import json

        from prefopt.train.card import model_card

        assert source.run is not None
        assert source.folder is not None
        progress = json.loads((Path(source.path) / "manifest.json").read_text(encoding="utf-8"))["progress"]
        return model_card(source.run, source.folder, progress["before"], progress["latest"], progress["step"])
    file = Path(source.path).expanduser() / "README.md"
    return file.read_text(encoding="utf-8") if file.is_file() else ""
