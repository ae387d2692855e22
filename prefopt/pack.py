"""Examples to one `Batch`: packed on one token axis, the prompt once for all its responses or once for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefopt.batch import Batch, Encoded, Segment, Span


def num_tokens(prompt_length: int, response_lengths: Sequence[int], share_prompt: bool) -> int:
    """Tokens an example takes on the axis: its prompt, and each response but the last token, which predicts nothing."""
    prompts = 1 if share_prompt else len(response_lengths)
    return prompts * prompt_length + sum(response_lengths) - len(response_lengths)


def pack(
    examples: Sequence[Encoded], share_prompts: bool = True, prompt_logps: bool = False, whole_responses: bool = False
) -> Batch:
    """One batch on the CPU, without padding.

    share_prompts: put each prompt on the axis once and let its responses continue it; else repeat it for each response.
    prompt_logps: also list which places predict the prompt's own tokens (for losses that need "prompt_logps").
    whole_responses: put the last token of each response on the axis too and say where it lies (for a scalar head).

    Raises: ValueError for no examples, an empty prompt or an empty response, which the data room never lets through.
    """
    if not examples or any(not e.prompt or not all(e.responses) for e in examples):
        raise ValueError("pack needs at least one example, each with a prompt and no empty response")
    axis = _Axis(whole_responses)
    rows_before = 0
    pairs: list[tuple[int, int]] = []
    best: list[int] = []
    targets: list[int | None] = []
    for number, example in enumerate(examples):
        axis.add_example(number, example, share_prompts, prompt_logps)
        pairs += [(rows_before + chosen, rows_before + rejected) for chosen, rejected in example.pairs]
        best.append(rows_before + example.best)
        targets.append(None if example.target is None else rows_before + example.target)
        rows_before += len(example.responses)
    return Batch(
        input_ids=_ints(axis.input_ids),
        position_ids=_ints(axis.position_ids),
        segments=tuple(axis.segments),
        predictor=_ints(axis.predictor),
        target=_ints(axis.target),
        row=_ints(axis.row),
        prompt_predictor=_ints(axis.prompt_predictor),
        prompt_target=_ints(axis.prompt_target),
        prompt_example=_ints(axis.prompt_example),
        lengths=_ints([len(r) - g for e in examples for r, g in zip(e.responses, _given(e), strict=True)]),
        example=_ints([n for n, e in enumerate(examples) for _ in e.responses]),
        prompt_lengths=_ints([len(e.prompt) for e in examples]),
        pairs=_ints(pairs).reshape(-1, 2),
        best=_ints(best),
        ids=tuple(e.id for e in examples),
        targets=None if None in targets else _ints(targets),
        last=_ints(axis.last) if whole_responses else None,
        labels=_column([e.labels for e in examples], torch.bool),
        scores=_column([e.scores for e in examples], torch.float64),
        margins=_column([e.margins for e in examples], torch.float64),
        reference_logps=_column([e.reference_logps for e in examples], torch.float64),
        reference_token_logps=_token_column([e.reference_token_logps for e in examples]),
    )


def _given(example: Encoded) -> list[int]:
    """Tokens at the beginning of each response that are read and not predicted."""
    return [0] * len(example.responses) if example.given is None else example.given


class _Axis:
    """The token axis while it is filled."""

    def __init__(self, whole_responses: bool) -> None:
        self.whole_responses = whole_responses
        self.last: list[int] = []
        self.input_ids: list[int] = []
        self.position_ids: list[int] = []
        self.segments: list[Segment] = []
        self.predictor: list[int] = []
        self.target: list[int] = []
        self.row: list[int] = []
        self.prompt_predictor: list[int] = []
        self.prompt_target: list[int] = []
        self.prompt_example: list[int] = []
        self._num_rows = 0

    def add_example(self, number: int, example: Encoded, share_prompt: bool, prompt_logps: bool) -> None:
        places = range(len(example.responses))
        groups = [list(places)] if share_prompt else [[place] for place in places]
        for group in groups:
            prompt = self._append(example.prompt, 0)
            if prompt_logps and example.best in group:
                self.prompt_predictor += range(prompt.start, prompt.stop - 1)
                self.prompt_target += example.prompt[1:]
                self.prompt_example += [number] * (len(example.prompt) - 1)
            given = _given(example)
            spans = [self._add_response(prompt, example.responses[place], given[place]) for place in group]
            self.segments.append(Segment(prompt, tuple(spans)))

    def _add_response(self, prompt: Span, response: list[int], given: int) -> Span:
        span = self._append(response if self.whole_responses else response[:-1], prompt.stop - prompt.start)
        self.predictor += [prompt.stop - 1, *range(span.start, span.start + len(response) - 1)][given:]
        self.target += response[given:]
        self.row += [self._num_rows] * (len(response) - given)
        self.last.append(span.stop - 1)
        self._num_rows += 1
        return span

    def _append(self, tokens: Sequence[int], first_position: int) -> Span:
        start = len(self.input_ids)
        self.input_ids += tokens
        self.position_ids += range(first_position, first_position + len(tokens))
        return Span(start, len(self.input_ids))


def _ints(values: Sequence) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _column(values: list, dtype: torch.dtype) -> Tensor | None:
    """A per-response column [R], or None where the examples lack it."""
    if any(v is None for v in values):
        return None
    return torch.tensor([entry for v in values for entry in v], dtype=dtype)


def _token_column(values: list) -> Tensor | None:
    """A per-token column [N], or None where the examples lack it."""
    if any(v is None for v in values):
        return None
    return torch.tensor([entry for v in values for response in v for entry in response], dtype=torch.float64)
