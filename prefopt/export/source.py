"""What is exported: a run's final model, one of its checkpoints, or any folder or hub model. Nothing is loaded here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from prefopt.changes import newest_step
from prefopt.errors import UserError, did_you_mean
from prefopt.evaluate.trained import Trained, open_trained
from prefopt.run_folder import RUN
from prefopt.settings import ModelSettings, RunSettings, load

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Source:
    """Where the numbers come from.

    shown: as messages name it. path: a folder of weights or adapters, or a hub name; of a checkpoint the folder of its
    parts. model: how the run loaded what training began with (for a plain model: its path alone). run: its settings
    and folder, or None. is_checkpoint: `path` is one.
    """

    shown: str
    path: str
    model: ModelSettings
    run: RunSettings | None = None
    folder: Path | None = None
    is_checkpoint: bool = False


def find_source(path: str, step: int | None) -> Source:
    """What `path` and `step` name.

    Raises: UserError for a path that leads nowhere, a run that is not done, a checkpoint that is not there, and a step
        of what is no run.
    """
    check_there(path, "export")
    folder = Path(path).expanduser()
    if not (folder / RUN).is_file():
        if step is not None:
            raise UserError(f"step={step}: {path} is no folder of prefopt train and has no checkpoints", "leave it out")
        return Source(path, path, ModelSettings(path=path))
    if step is None:
        trained = _trained(path, folder)
        return Source(path, trained.model, trained.settings.model, trained.settings, folder)
    checkpoint = folder / CHECKPOINTS / f"step-{step:08d}"
    if not checkpoint.is_dir():
        steps = sorted(int(p.name.removeprefix("step-")) for p in checkpoint.parent.glob("step-*"))
        hint = f"there are {', '.join(map(str, steps))}" if steps else "the run has no checkpoints"
        raise UserError(f"step={step}: {path} has no checkpoint of it", hint)
    run = load(folder / RUN)
    return Source(f"{path} at step {step}", str(checkpoint), run.model, run, folder, is_checkpoint=True)


def check_there(path: str, what: str) -> None:
    """Refuse at once what can only be meant for a folder here: a hub would be asked for it, and takes its time.

    what: begins the message. Raises: UserError naming the runs beside it, where there are any.
    """
    folder = Path(path).expanduser()
    if folder.exists() or "/" not in path:
        return
    beside = sorted(run.parent.name for run in folder.parent.glob(f"*/{RUN}"))[:100]
    if beside or path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise UserError(f"{what}: there is no folder {path}", did_you_mean(folder.name, beside))


def _trained(path: str, folder: Path) -> Trained:
    """The run, called as the command names it. Raises: as `open_trained`, with the newest checkpoint."""
    try:
        return open_trained(str(folder))
    except UserError as error:
        hint = error.hint
        if step := newest_step(folder):
            hint = f"{hint}; or take its newest checkpoint: step={step}"
        raise UserError(f"export: {path}: {error.message.partition(': ')[2]}", hint) from None


def exactly(model: ModelSettings) -> ModelSettings:
    """The same model in float32 without anything that only training needs; adapters over plain weights."""
    lora = None if model.lora is None else replace(model.lora, base="plain")
    return replace(
        model, dtype="float32", layout="auto", attention="auto", checkpoint_every=None, offload_activations=False,
        lora=lora,
    )  # fmt: skip
