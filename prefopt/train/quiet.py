"""Progress bars and advice of the libraries underneath, off: prefopt says what is worth saying."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("accelerate", "DeepSpeed", "torch.distributed", "bitsandbytes")


def quiet_libraries() -> None:
    """Errors still come through."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # peft 0.21 asks transformers 5.23 by the old name of `is_activation_checkpointing` whenever it puts adapters on.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


@contextmanager
def quietly() -> Iterator[None]:
    """The same for a while, in a process that is not ours: a notebook finds its libraries as it left them."""
    import datasets
    import transformers

    theirs, bars = transformers.utils.logging, datasets.utils.logging
    verbosity, has_bar, has_bars = (
        theirs.get_verbosity(),
        theirs.is_progress_bar_enabled(),
        bars.is_progress_bar_enabled(),
    )
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    try:
        with warnings.catch_warnings():
            quiet_libraries()
            yield
    finally:
        theirs.set_verbosity(verbosity)
        if has_bar:
            theirs.enable_progress_bar()
        if has_bars:
            datasets.enable_progress_bars()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
