"""What is kept of a row on disk: its token ids, what a method asked for, and what the report counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa

_IDS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "row": pa.int64(),  # line or place in the file, from 1
        "prompt": _IDS,
        "responses": pa.list_(_IDS),
        "pairs": _IDS,  # chosen, rejected, chosen, rejected ...
        "best": pa.int32(),
        "labels": pa.list_(pa.bool_()),
        "scores": pa.list_(pa.float64()),
        "margins": pa.list_(pa.list_(pa.float64())),
        "target": pa.int32(),
        "given": _IDS,
        "prompt_hash": pa.uint64(),  # of the prompt's words, whatever the template
        "prompt_text": pa.string(),  # as rendered, before any cut
        "chosen_text": pa.string(),  # the best response, as in the file
        # What the report counts, per row.
        "num_unused": pa.int32(),  # responses of the file that the method does not use
        "num_added": pa.int32(),  # responses to imitate (y_ref) that stand behind them
        "num_compared": pa.int32(),  # pairs that are shown in both orders
        "is_paired_ranking": pa.bool_(),  # more than two responses, of which pairs are made
        "num_identical": pa.int32(),  # pairs dropped because both texts are the same
        "num_close": pa.int32(),  # pairs left out because their scores differ too little
        "num_desirable": pa.int32(),  # labels that are true
        "labelled_by_pair": pa.bool_(),
        "is_labelled_by_score": pa.bool_(),
        "is_demonstration": pa.bool_(),  # nobody judged it: taken for desirable
        "num_moved": pa.int32(),  # responses whose first token would have merged with the prompt's last
        "num_glued": pa.int32(),  # plain responses that continue the prompt's last word or sentence without white space
        "num_eos": pa.int32(),  # responses that end in EOS
        "num_eos_lost": pa.int32(),  # responses that were cut at their end
        "prompt_cut": pa.bool_(),
        "is_prompt_empty": pa.bool_(),  # no words in its last message
        "num_bos": pa.int32(),  # in the prompt and the response with most of them
        "num_special": pa.int32(),  # texts that spell a special token
        "num_unknown": pa.int32(),  # tokens for text that the tokenizer cannot write
    }
)


class Chunk(NamedTuple):
    """Encoded rows, and the rows left out: {row, id, reason, detail}."""

    kept: pa.RecordBatch
    left_out: list[dict[str, Any]]
