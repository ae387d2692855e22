"""The data formats: how each is recognised from a file's columns, and what it can serve.

| format | columns |
|---|---|
| examples | prompt (messages), candidates [{text, score, label, margins}], is_chat, target: our own records |
| ranked | prompt, responses or candidates or completions, and scores (or rank: 0 is best) |
| labels | as sft, with label or kto_tag |
| sharegpt | conversations (or messages) that end with a question, chosen, rejected |
| swift | messages that end with the chosen answer, rejected_response |
| alpaca | instruction, chosen, rejected, perhaps input, system, history |
| hh | chosen, rejected: whole dialogues in one string, beginning "\\n\\nHuman:" |
| judged | instruction or input or prompt, two outputs or responses, and which of them is better |
| trl | chosen, rejected, perhaps prompt, score_chosen, score_rejected; strings or conversations |
| sft | prompt, completion (or response); instruction, input, output; or messages |

Where the method asks for them, more columns are read: `y_ref` beside pairs and lists, a response to imitate; `score`
beside one response; `margin` of TRL's pairs; the columns that `data.margins` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prefopt.data.extras import (
    Holds,
)
from prefopt.data.format_alpaca import is_alpaca, read_alpaca
from prefopt.data.format_judged import OUTPUTS, PROMPTS, VERDICTS, is_judged, read_judged
from prefopt.data.format_lists import (
    CONVERSATIONS,
    RANKS,
    RESPONSE_LISTS,
    RESPONSES,
    read_examples,
    read_labels,
    read_ranked,
    read_sft,
)
from prefopt.data.format_pairs import Columns, Parsed, Values, read_hh, read_sharegpt, read_swift, read_trl
from prefopt.data.messages import may_be_prompt
from prefopt.data.recognised import SCORES, Format, Recognised
from prefopt.data.rows import LABELS, Row, label_of
from prefopt.errors import UserError, did_you_mean

# Columns that hold (part of) a prompt in files of other tools: `trl` has no use for them and must not take such a file.
_OTHER_PROMPTS = frozenset({"question", "instruction", "input", "query"})


def _is_examples(seen: Mapping[str, Any]) -> bool:
    candidates = seen.get("candidates")
    return "prompt" in seen and isinstance(candidates, list) and bool(candidates) and isinstance(candidates[0], dict)


def _is_ranked(seen: Mapping[str, Any]) -> bool:
    judged = isinstance(seen.get("scores"), list) or any(isinstance(seen.get(name), list) for name in RANKS)
    return "prompt" in seen and any(name in seen for name in RESPONSE_LISTS) and judged


def _is_labels(seen: Mapping[str, Any]) -> bool:
    if _is_alpaca_response(seen) and not _has_one_response(seen):
        # Files of instructions may call anything a label: only one that says yes or no makes them judged.
        return str(label_of(seen)).strip().lower() in ("true", "false", "1", "0", "1.0", "0.0")
    return not seen.keys().isdisjoint(LABELS) and _has_one_response(seen)


def _is_sharegpt(seen: Mapping[str, Any]) -> bool:
    if not {"chosen", "rejected"} <= seen.keys():
        return False
    return "conversations" in seen or ("prompt" not in seen and _is_asked_in_messages(seen))


def _is_asked_in_messages(seen: Mapping[str, Any]) -> bool:
    """Whether `messages` holds what chosen and rejected answer; where these are whole dialogues they hold it."""
    chosen = seen["chosen"]
    return may_be_prompt(seen.get("messages")) and not (isinstance(chosen, list) and len(chosen) > 1)


def _is_swift(seen: Mapping[str, Any]) -> bool:
    return isinstance(seen.get("messages"), list) and seen.get("rejected_response") is not None


def _is_hh(seen: Mapping[str, Any]) -> bool:
    chosen = seen.get("chosen")
    return "prompt" not in seen and "rejected" in seen and isinstance(chosen, str) and chosen.startswith("\n\nHuman:")


def _is_trl(seen: Mapping[str, Any]) -> bool:
    paired = {"chosen", "rejected"} <= seen.keys() or {"chosen_messages", "rejected_messages"} <= seen.keys()
    return paired and ("prompt" in seen or not _OTHER_PROMPTS & seen.keys())


def _is_sft(seen: Mapping[str, Any]) -> bool:
    return "chosen" not in seen and (_is_alpaca_response(seen) or _has_one_response(seen))


def _is_alpaca_response(seen: Mapping[str, Any]) -> bool:
    return {"instruction", "output"} <= seen.keys()


def _has_one_response(seen: Mapping[str, Any]) -> bool:
    spoken = any(isinstance(seen.get(name), list) for name in CONVERSATIONS)
    return ("prompt" in seen and any(name in seen for name in RESPONSES)) or spoken


def _format(
    name: str,
    shape: str,
    holds: Holds,
    gives: str,
    extras: dict[str, str],
    matches: Callable[[Mapping[str, Any]], bool],
    read: Callable[[Values, Columns], Parsed],
    *uses: str,
) -> Format:
    """extras: columns in one string, alternatives divided by "|"."""
    split = {need: tuple(frozenset(s.split()) for s in columns.split("|")) for need, columns in extras.items()}
    return Format(name, shape, holds, frozenset(gives.split()), split, matches, read, frozenset(uses))


def _scores(columns: str) -> dict[str, str]:
    return dict.fromkeys(sorted(SCORES), columns)


_ALPACA = ("instruction", "input", "system", "history")
_ONE = ("prompt", *RESPONSES, *CONVERSATIONS)
_TARGET = {"targets": "y_ref"}

# In the order in which they are tried: the more particular first.
FORMATS = {
    f.name: f
    for f in (
        _format("examples", "prompt, candidates [{text, score, label}], is_chat", "list", "pairs ranking labels",
                {**_scores("candidates.score"), "margins": "candidates.margins", "targets": "target"},
                _is_examples, read_examples, "prompt", "candidates", "is_chat", "id", "target"),
        _format("ranked", "prompt, responses, scores (or rank)", "list", "pairs ranking labels",
                {**_scores("scores"), **_TARGET},
                _is_ranked, read_ranked, "prompt", "scores", *RESPONSE_LISTS, *RANKS),
        _format("labels", "prompt, completion, label; or messages, label; or instruction, output, kto_tag", "one", "",
                {"labels": "label|kto_tag|score", **_scores("score")},
                _is_labels, read_labels, *LABELS, *_ALPACA, "output", *_ONE),
        _format("sharegpt", "conversations or messages, chosen, rejected", "pair", "pairs ranking labels", _TARGET,
                _is_sharegpt, read_sharegpt, *CONVERSATIONS, "chosen", "rejected", "system"),
        _format("swift", "messages, rejected_response", "pair", "pairs ranking labels", _TARGET,
                _is_swift, read_swift, "messages", "rejected_response", "system"),
        _format("alpaca", "instruction, perhaps input, chosen, rejected", "pair", "pairs ranking labels",
                _TARGET, is_alpaca, read_alpaca, *_ALPACA, "chosen", "rejected"),
        _format("hh", "chosen, rejected beginning with a Human turn", "pair", "pairs ranking labels", _TARGET,
                _is_hh, read_hh, "chosen", "rejected"),
        _format("judged", "instruction or input, output_1, output_2, label or preference (1 or 2)", "pair",
                "pairs ranking labels", _TARGET,
                is_judged, read_judged, *PROMPTS, *VERDICTS, "system", "history",
                "annotator1", "annotator2", "annotator3", *(name for pair in OUTPUTS for name in pair)),
        _format("trl", "prompt (or none), chosen, rejected", "pair", "pairs ranking labels",
                {**_scores("score_chosen score_rejected"), "margins": "margin", **_TARGET},
                _is_trl, read_trl, "prompt", "chosen", "rejected", "chosen_messages", "rejected_messages",
                "score_chosen", "score_rejected"),
        _format("sft", "prompt, completion; instruction, input, output; or messages", "one", "",
                {"labels": "score", **_scores("score")},
                _is_sft, read_sft, *_ALPACA, "output", *_ONE),
    )
}  # fmt: skip


def recognise(rows: Sequence[Row], name: str, label: str) -> Recognised:
    """The format of a file, from its first rows, or the one that `name` asks for.

    name: a format or "auto". label: the file, for the message.

    Raises: UserError where no format fits, or there is none of that name.
    """
    if name != "auto" and name not in FORMATS:
        raise UserError(f"format: there is no format {name!r}", did_you_mean(name, (*FORMATS, "auto")))
    seen = columns_of(rows)
    found = fitting(rows) if name == "auto" else _recognised(FORMATS[name], seen, rows)
    if found is not None:
        return found
    shapes = "; ".join(f"{f.name} ({f.shape})" for f in FORMATS.values())
    columns = ", ".join([column[:40] for column in seen][:40]) or "none"
    raise UserError(
        f"{label}: its columns ({columns}) fit no format that prefopt knows",
        f"rename columns, or set format to one of: {shapes}",
    )


def fitting(rows: Sequence[Row]) -> Recognised | None:
    """The format that a file's first rows fit; None where there is none. Raises: as `columns_of`."""
    seen = columns_of(rows)
    found = next((f for f in FORMATS.values() if f.matches(seen)), None)
    return None if found is None else _recognised(found, seen, rows)


def columns_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Every column of these rows with the first value that is not null, or null.

    Raises: UserError for a name that cannot be written down.
    """
    seen: dict[str, Any] = {}
    for row in rows:
        for column, value in row.value.items():
            if seen.get(column) is None:
                _check_name(column, row)
                seen[column] = value
    return seen


def _recognised(found: Format, seen: Mapping[str, Any], rows: Sequence[Row]) -> Recognised:
    filled = {column for column, value in seen.items() if value is not None} | set(_of_candidates(rows))
    return Recognised(found, frozenset(seen), frozenset(filled))


def _check_name(column: str, row: Row) -> None:
    """Raises: UserError for a name that cannot be written down: half of a surrogate pair."""
    try:
        column.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{row.id}: the name of a column is not valid text: {column[:40]!r}", "rename it") from None


def _of_candidates(rows: Sequence[Row]) -> Iterator[str]:
    """What the candidates of our own records hold, as "candidates.score"."""
    for row in rows:
        candidates = row.value.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, Mapping):
                yield from (f"candidates.{key}" for key, value in candidate.items() if value is not None)
