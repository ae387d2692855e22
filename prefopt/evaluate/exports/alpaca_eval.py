"""AlpacaEval's `model_outputs.json` (Dubois et al. 2024, arXiv 2404.04475): instruction, output and generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from prefopt import durable
from prefopt.evaluate.answer_files import Answer

FILE = Path("model_outputs.json")


def write(folder: Path, answers: Sequence[Answer]) -> Path:
    """The file in `folder`; rows in the order of the answers. `dataset` is there where a question has a category.

    Raises: OSError where it cannot be written.
    """
    rows = [
        {
            **({"dataset": answer.category} if answer.category else {}),
            "instruction": answer.prompt,
            "output": answer.response,
            "generator": answer.generator,
        }
        for answer in answers
    ]
    path = folder / FILE
    durable.make_folder(path.parent)
    durable.write_text(path, json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    return path
