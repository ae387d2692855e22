"""`prefopt data`: what would be trained on, and every row that would not."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from prefopt.cache import cache_folder
from prefopt.console import PLAIN
from prefopt.errors import UserError
from prefopt.launch import prepare_data, tokenizer_path
from prefopt.positions_check import check_positions
from prefopt.run_folder import MANIFEST, RUN, has_done_step, read_json
from prefopt.settings import RunSettings, load


def recorded(words: list[str]) -> tuple[RunSettings, Path]:
    """The run that the word `run=FOLDER` names, as its run.yaml has it, and the folder.

    Raises: UserError where something else is said beside it, or the folder is no run.
    """
    word = next(word for word in words if word.startswith("run="))
    folder = Path(word.removeprefix("run="))
    if others := [other for other in words if other != word]:
        raise UserError(
            f"{others[0]}: has no effect beside {word}, which says all of it", "leave it out, or run=FOLDER"
        )
    if not (folder / RUN).is_file():
        raise UserError(f"{word}: this is no folder of prefopt train: it has no {RUN}", "run=FOLDER")
    return load(folder / RUN), folder


def show_data(run: RunSettings, num_rows: int, folder: Path | None = None) -> int:
    """Print the account of a checked run's data and its first `num_rows` rows; 0.

    folder: of a run that was trained on them, or that they were prepared for.

    Raises: UserError for data that `prefopt train` would refuse; where too many rows are left out, once all is shown,
        as where they are no longer what the run in `folder` was trained on. RunError for disk or network.
    """
    from prefopt import demo

    console = Console()
    cache = cache_folder(run.data)
    real = demo.resolve(run, cache, weights=False)
    from prefopt.data.dataset import DropError
    from prefopt.data.show import show
    from prefopt.data.tokenizer import load_tokenizer

    refusal: DropError | None = None
    try:
        prepared = prepare_data(real, cache)
    except DropError as error:
        refusal, prepared = error, error.prepared
    revision = real.model.revision if real.model.tokenizer is None else None
    show(prepared, load_tokenizer(tokenizer_path(real), revision, real.data.chat_template), console, num_rows)
    if refusal is not None:
        raise UserError(f"prefopt train would refuse these data: {refusal.message}", refusal.mend)
    if folder is not None:
        whose = f"{folder} was trained on" if has_done_step(folder) else f"were prepared for {folder}"
        _check_same(prepared.fingerprint, folder, whose)
        console.print(f"these are the data that {whose}", **PLAIN)
    try:
        check_positions(real, prepared)
    except UserError as error:
        raise UserError(f"prefopt train would refuse these data: {error.message}", error.hint) from None
    return 0


def _check_same(fingerprint: str, folder: Path, whose: str) -> None:
    manifest = read_json(folder / MANIFEST, "run") or {}
    if manifest.get("data_fingerprint") != fingerprint:
        raise UserError(
            f"these are not the data that {whose}: the rows, the tokenizer or the template are others by now",
            f"{folder}/data_report.json and left_out.jsonl have the account of those",
        )
