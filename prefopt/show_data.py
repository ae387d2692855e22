"""`prefopt data`: what would be trained on, and every row that would not."""

from __future__ import annotations

from rich.console import Console

from prefopt.cache import cache_folder
from prefopt.console import PLAIN
from prefopt.launch import prepare_data, tokenizer_path
from prefopt.settings import RunSettings


def show_data(run: RunSettings, num_rows: int) -> int:
    """Print the account of a checked run's data and its first `num_rows` rows; 0.

    Raises: UserError for data that cannot serve, once the rows that were left out are named; RunError for disk or
        network.
    """
    from prefopt import demo

    console = Console()
    cache = cache_folder(run.data)
    real = demo.resolve(run, cache, weights=False)
    from prefopt.data.report import DropError
    from prefopt.data.show import show
    from prefopt.data.tokenizer import load_tokenizer

    try:
        prepared = prepare_data(real, cache)
    except DropError as error:
        for row in error.left_out:
            detail = f" ({row['detail']})" if row.get("detail") else ""
            console.print(f"left out: {row['source']} row {row['row']}: {row['reason']}{detail}", **PLAIN)
        raise
    revision = real.model.revision if real.model.tokenizer is None else None
    show(prepared, load_tokenizer(tokenizer_path(real), revision, real.data.chat_template), console, num_rows)
    return 0
