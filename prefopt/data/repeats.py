"""Rows that ask what another row of their set asks, and those that are the same row once more."""

from __future__ import annotations

from typing import Any

import numpy as np

from prefopt.data.encoded_set import EncodedSet

_LOOKED_AT = 1000
"""Repeated rows whose responses are compared: a tenth of a second, also where every prompt has many rows."""

_NAMED = 5


def repeats(rows: EncodedSet) -> dict[str, Any]:
    """The repeated prompts of a set, as JSON.

    prompts: rows whose prompt a row before them has. looked_at: how many of these were compared with the rows before,
    the first ones. same: how many of those are one of them once more, token for token. examples: {row, of, same} by
    their ids, the same ones first; where the responses differ, `of` is the first row of the prompt.
    """
    _, firsts, groups = np.unique(rows.prompt_hashes, return_index=True, return_inverse=True)
    first_of = firsts[groups.ravel()]
    again = np.flatnonzero(first_of != np.arange(len(rows)))
    seen: dict[int, dict[str, str]] = {}  # by the first row of a prompt: what its rows are, and the id of each
    found = []
    for place in map(int, again[:_LOOKED_AT]):
        first = int(first_of[place])
        before = seen.setdefault(first, dict([_content(rows, first)]))
        content, name = _content(rows, place)
        found.append({"row": name, "of": before.get(content) or next(iter(before.values())), "same": content in before})
        before.setdefault(content, name)
    found.sort(key=lambda one: not one["same"])
    return {
        "prompts": len(again),
        "looked_at": len(found),
        "same": sum(bool(one["same"]) for one in found),
        "examples": found[:_NAMED],
    }


def _content(rows: EncodedSet, place: int) -> tuple[str, str]:
    """What a row is trained on, and its id."""
    row = rows[place]
    return repr((row.prompt, row.responses, row.pairs, row.labels)), row.id
