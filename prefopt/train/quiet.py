"""Progress bars and advice of the libraries underneath, off: prefopt says what is worth saying."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Errors still come through."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("accelerate", "DeepSpeed", "torch.distributed", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # peft 0.21 asks transformers 5.23 by the old name of `is_activation_checkpointing` whenever it puts adapters on.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
