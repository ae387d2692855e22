"""Arena-Hard's `data/BENCH/model_answer/MODEL.jsonl` (Li et al. 2024, arXiv 2406.11939), as its repository has it.

A row for each `uid`: `ans_id`, `model`, `messages` (the question, and an answer that is an object with the key
`answer`), `tstamp`, and `metadata`, by which its score is corrected for length and style.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from prefopt import durable
from prefopt.evaluate.answer_files import Answer
from prefopt.evaluate.exports.answer_ids import answer_id
from prefopt.evaluate.markdown_counts import markdown_counts

BENCHES = {"arena_hard_v0.1": "arena-hard-v0.1", "arena_hard_v2": "arena-hard-v2.0"}
"""Our names of formats to the folders that the tool keeps under `data`."""


def write(folder: Path, bench: str, answers: Sequence[Answer], token_lens: Sequence[int], begun: float) -> Path:
    """The file under `folder`/`bench`; rows in the order of the answers.

    bench: a folder of `BENCHES`. token_lens: of each answer, see `token_len.py`. begun: seconds since 1970, `tstamp` of
    every row.

    Raises: OSError where it cannot be written.
    """
    rows = [
        {
            "uid": answer.id,
            "ans_id": answer_id(answer.generator, answer.id, [answer.response]),
            "model": answer.generator,
            "messages": [
                {"role": "user", "content": answer.prompt},
                {"role": "assistant", "content": {"answer": answer.response}},
            ],
            "tstamp": begun,
            "metadata": {"token_len": token_len, **markdown_counts(answer.response)},
        }
        for answer, token_len in zip(answers, token_lens, strict=True)
    ]
    path = folder / bench / "model_answer" / f"{answers[0].generator}.jsonl"
    durable.make_folder(path.parent)
    durable.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path
