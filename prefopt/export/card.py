"""The exported folder's README.md: the model's own card, with what the export changed."""

from __future__ import annotations

import re
from pathlib import Path

from prefopt import __version__


def exported_card(
    original: str, shown: str, base: str, is_merged: bool, dtype: str, difference: float, held: str
) -> str:
    """The card with a section on the export.

    original: the model's card; empty where it has none. base: the model under the adapters. difference: what a fresh
    process found, nats per token or of a reward. held: how the weights under the adapters were held in training.
    """
    text = original or f"---\nbase_model: {base}\nlibrary_name: transformers\n---\n\n# {Path(shown).name}\n"
    lines = [f"Written by `prefopt export` {__version__} from {shown}."]
    if is_merged:
        # With adapters inside, the folder is loaded by transformers alone.
        text = re.sub(r"(?m)^library_name: peft$", "library_name: transformers", text, count=1)
        lines.append(f"The adapters are merged into {base}; the weights are {dtype}.")
        if held != "plain":
            lines.append(
                f"They were trained over weights held in {held}: merged into plain ones they give other numbers."
            )
    lines.append(f"A fresh process loaded it and found the numbers of the original to {difference:.1e}.")
    return f"{text.rstrip()}\n\n## Export\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"
