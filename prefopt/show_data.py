"""`prefopt data`: what would be trained on, and every row that would not."""

from __future__ import annotations

from rich.console import Console

from prefopt.cache import cache_folder
from prefopt.errors import UserError
from prefopt.launch import prepare_data, tokenizer_path
from prefopt.settings import RunSettings


def show_data(run: RunSettings, num_rows: int) -> int:
    """Print the account of a checked run's data and its first `num_rows` rows; 0.

    Raises: UserError for data that `prefopt train` would refuse; where too many rows are left out, once all is shown.
        RunError for disk or network.
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
    return 0
