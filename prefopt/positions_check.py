"""Do the rows of a run fit the positions of its models? Asked once the data are prepared, before a folder is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.model.positions import check_longest, limits_in
from prefopt.settings import RunSettings

if TYPE_CHECKING:
    from prefopt.data.dataset import Prepared


def check_positions(run: RunSettings, prepared: Prepared) -> None:
    """Refuse rows longer than the policy or a reference of its own takes, as far as their config.json is here.

    run: whose paths are real ones. Of a hub's model that has not been downloaded the ranks find out.

    Raises: UserError with the longest row and the data.max_length that would do.
    """
    from prefopt.train.mismatched import longest_row

    longest = max(longest_row(rows) for rows in (prepared.train, *prepared.eval.values()))
    model = run.model
    reference = None if model.reference == model.path else model.reference
    for key, path, revision in (("model.path", model.path, model.revision), ("model.reference", reference, None)):
        folder = None if path is None else _folder_here(path, revision)
        if folder is not None:
            check_longest(limits_in(folder), longest, path or folder, key)


def _folder_here(path: str, revision: str | None) -> Path | None:
    """Where a model's config.json lies on this machine: in a folder, or in the hub's cache; None where in neither."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder if (folder / "config.json").is_file() else None
    try:
        found = try_to_load_from_cache(path, "config.json", revision=revision)
    except HFValidationError:  # a name of no repository, as a demo's
        return None
    return Path(found).parent if isinstance(found, str) else None
