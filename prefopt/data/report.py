"""The account of a data set (`data_report.json`): what was read, kept, left out and changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prefopt.data.artefact import Artefact
from prefopt.data.build import Built
from prefopt.data.content import content_digest
from prefopt.data.conversions import conversions
from prefopt.data.encoded_set import EncodedSet, Part
from prefopt.data.repeats import repeats
from prefopt.data.split import among
from prefopt.errors import UserError
from prefopt.settings import DataSettings

if TYPE_CHECKING:
    from prefopt.data.dataset import Prepared

_QUANTILES = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_ROWS_NAMED = 20
_REASONS_NAMED = 3


class DropError(UserError):
    """More rows had to be left out than `data.max_drop_fraction` allows.

    prepared: the data as they would be, so that the caller can show or write them before it stops. mend: the hint for
    a reader who sees every row already.
    """

    def __init__(self, message: str, mend: str, prepared: Prepared) -> None:
        super().__init__(message, f"`prefopt data` shows every row that is left out; {mend}")
        self.mend = mend
        self.prepared = prepared


def make_report(
    built: Mapping[str, Sequence[Built]],
    sets: Mapping[str, EncodedSet],
    settings: DataSettings,
    needs: frozenset[str],
    about: dict[str, Any],
) -> dict[str, Any]:
    """The report, as JSON.

    built: the sources by the set that names them. sets: what they became, held-out rows apart. about: goes in front
    (tokenizer, template, fingerprint).
    """
    sources = [
        {"set": name, **_about_source(one, settings, needs), **_account([one.artefact], needs)}
        for name, ones in built.items()
        for one in ones
    ]
    artefacts = [one.artefact for ones in built.values() for one in ones]
    train_prompts = np.sort(sets["train"].prompt_hashes)
    return {
        **about,
        "from_cache": all(one.from_cache for ones in built.values() for one in ones),
        "sources": sources,
        "sets": {name: _about_set(name, rows, train_prompts) for name, rows in sets.items()},
        "total": _account(artefacts, needs),
    }


def check_drops(built: Mapping[str, Sequence[Built]], limit: float, prepared: Prepared) -> None:
    """Raises: DropError where a set lost more than `limit` of its rows, or all of them."""
    for name, ones in built.items():
        read = sum(one.artefact.facts["read"] for one in ones)
        kept = sum(one.artefact.facts["kept"] for one in ones)
        if kept and (read - kept) / read <= limit:
            continue
        where = "data.train" if name == "train" else f"data.eval.{name}"
        reasons = _by_reason([row for one in ones for row in one.artefact.left_out()])
        top = _named(reasons)
        if not kept:
            raise DropError(f"{where}: none of {read} rows can be used: {top}", "mend them or the limits", prepared)
        share = f"{read - kept} of {read} rows ({(read - kept) / read:.1%})"
        mend = f"mend them or the limits, or raise data.max_drop_fraction (now {limit:g})"
        raise DropError(f"{where}: {share} are left out: {top}", mend, prepared)


def _named(reasons: dict[str, dict[str, Any]]) -> str:
    """The most frequent reasons with their counts, and how much there is besides."""
    counts = [(reason, rows["count"]) for reason, rows in reasons.items()]
    top = ", ".join(f"{reason} ({count})" for reason, count in counts[:_REASONS_NAMED])
    if rest := counts[_REASONS_NAMED:]:
        of_rest = "1 reason" if len(rest) == 1 else f"{len(rest)} reasons"
        top += f", and {of_rest} more ({sum(count for _, count in rest)})"
    return top


def _whole(artefact: Artefact) -> Part:
    return Part(artefact, np.arange(artefact.facts["kept"]), 1.0)


def _about_source(one: Built, settings: DataSettings, needs: frozenset[str]) -> dict[str, Any]:
    facts = one.artefact.facts
    return {
        "path": one.source.path,
        "format": facts["format"],
        "columns_unused": facts["columns_unused"],
        "weight": one.source.weight,
        "limit": one.source.limit,
        "from_cache": one.from_cache,
        "conversions": conversions(one, settings, needs),
    }


def _about_set(name: str, rows: EncodedSet, train_prompts: np.ndarray) -> dict[str, Any]:
    about: dict[str, Any] = {
        "rows": len(rows),
        "pairs": int(rows.num_pairs.sum()),
        "responses": len(rows.response_lengths),
        "tokens": int(rows.prompt_lengths.sum() + rows.response_lengths.sum()),
        "fingerprint": rows.fingerprint,
        "repeated": repeats(rows),
    }
    if name != "train":
        about["content"] = content_digest(rows)
        about["prompts_also_in_train"] = int(among(rows.prompt_hashes, train_prompts).sum())
    return about


def _account(artefacts: list[Artefact], needs: frozenset[str]) -> dict[str, Any]:
    """Counts over whole artefacts. Row numbers are given where there is one of them."""
    parts = [_whole(artefact) for artefact in artefacts]
    rows = EncodedSet("", parts)
    left_out = _by_reason([row for artefact in artefacts for row in artefact.left_out()], named=len(artefacts) == 1)

    def column(name: str) -> np.ndarray:
        return np.concatenate([part.column(name) for part in parts])

    bos, responses = column("num_bos"), len(rows.response_lengths)
    return {
        "read": sum(artefact.facts["read"] for artefact in artefacts),
        "kept": len(rows),
        "dropped": left_out,
        "pairs": int(rows.num_pairs.sum()),
        "responses": responses,
        "truncated": {
            "prompts": int(column("prompt_cut").sum()),
            "responses": int(column("num_eos_lost").sum()),
        },
        "identical_pairs": _count(left_out, "chosen equals rejected") + int(column("num_identical").sum()),
        "close_pairs": _count(left_out, "score gap too small") + int(column("num_close").sum()),
        **({"labels": _labels(column("num_desirable"), responses)} if "labels" in needs else {}),
        "empty_prompts": int(column("is_prompt_empty").sum()),
        "empty_responses": _count(left_out, "empty response"),
        "duplicate_prompts": int((np.diff(np.sort(rows.prompt_hashes)) == 0).sum()),
        "boundary_moved": int(column("num_moved").sum()),
        "eos_kept": f"{int(column('num_eos').sum())} of {responses}",
        "eos_lost": int(column("num_eos_lost").sum()),
        "bos_per_row": {"min": int(bos.min()), "max": int(bos.max())} if len(bos) else None,
        "texts_with_special_tokens": int(column("num_special").sum()),
        "unknown_tokens": int(column("num_unknown").sum()),
        "prompt_tokens": _quantiles(rows.prompt_lengths),
        "response_tokens": _quantiles(rows.response_lengths),
    }


def _labels(desirable: np.ndarray, num_responses: int) -> dict[str, int]:
    """How many responses are desirable, and how many are not."""
    return {"desirable": int(desirable.sum()), "undesirable": num_responses - int(desirable.sum())}


def _by_reason(left_out: list[dict[str, Any]], named: bool = True) -> dict[str, dict[str, Any]]:
    """Counts and first row numbers, the most frequent reason first."""
    rows: dict[str, list[int]] = {}
    for row in left_out:
        rows.setdefault(row["reason"], []).append(row["row"])
    ordered = sorted(rows.items(), key=lambda item: (-len(item[1]), item[0]))
    return {
        reason: {"count": len(numbers), **({"rows": numbers[:_ROWS_NAMED]} if named else {})}
        for reason, numbers in ordered
    }


def _count(left_out: dict[str, dict[str, Any]], reason: str) -> int:
    return left_out[reason]["count"] if reason in left_out else 0


def _quantiles(lengths: np.ndarray) -> dict[str, int] | None:
    """Lengths in tokens that really occur (no interpolation)."""
    if not len(lengths):
        return None
    values = np.quantile(lengths, list(_QUANTILES.values()), method="nearest")
    return {name: int(value) for name, value in zip(_QUANTILES, values)}
