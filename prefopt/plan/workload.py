"""How much a run computes: steps, micro-batches and tokens, cut as the run itself would cut them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefopt.cache import cache_folder
from prefopt.errors import UserError
from prefopt.losses import make_loss
from prefopt.model_check import check_tokenizer
from prefopt.plan.activations import Geometry
from prefopt.plan.operations import Amount
from prefopt.plan.published import DATA_SETS
from prefopt.plan.shape import Shape
from prefopt.run_folder import MANIFEST, read_json
from prefopt.settings import RunSettings, SourceSettings, TrainSettings

if TYPE_CHECKING:
    import numpy as np

    from prefopt.data.encoded_set import EncodedSet
    from prefopt.data.plan import Plan
    from prefopt.train.rows import Rows

STEPS_LOOKED_AT = 50

SEVERAL = frozenset({"pairs", "ranking", "labels", "comparisons", "verdicts"})
"""Needs with which more than one response of a row is trained on."""


class Given(NamedTuple):
    """What the command line says of the data; None: not said."""

    rows: int | None = None
    prompt: int | None = None
    response: int | None = None


@dataclass(frozen=True)
class Workload:
    """A run's work.

    assumed: what is believed of the data and not known. unit: what a step counts. steps, evaluations, saves: how many.
    train: of all rows, once. evaluated: of all held-out rows, once. step: of a mean step. slowest: of the rank that
    has most of it. micro_batches: of a rank in a mean step. heaviest: micro-batches of which one takes most memory.
    extra_passes: forward passes without gradients over a step that a method needs besides.
    """

    assumed: tuple[str, ...]
    source: str
    unit: str
    steps: int
    evaluations: int
    saves: int
    train: Amount
    evaluated: Amount
    step: Amount
    slowest: Amount
    micro_batches: float
    heaviest: tuple[Geometry, ...]
    longest_row: int
    extra_passes: int


class AssumedSet:
    """Rows that nobody has seen, all of the same lengths: what `Rows` and a plan ask of an encoded set."""

    def __init__(self, name: str, rows: int, prompt: int, response: int, responses: int) -> None:
        self.name = name
        self._rows = rows
        self._prompt = prompt
        self._response = response
        self._responses = responses
        self.sources = [(0, rows, 1.0)]

    def __len__(self) -> int:
        return self._rows

    def _filled(self, count: int, value: int) -> np.ndarray:
        import numpy as np

        return np.full(count, value, dtype=np.int64)

    @cached_property
    def prompt_lengths(self) -> np.ndarray:
        """[E] tokens."""
        return self._filled(self._rows, self._prompt)

    @cached_property
    def response_lengths(self) -> np.ndarray:
        """[R] tokens."""
        return self._filled(self._rows * self._responses, self._response)

    @cached_property
    def response_offsets(self) -> np.ndarray:
        """[E + 1] where each row's responses begin."""
        import numpy as np

        return np.arange(self._rows + 1, dtype=np.int64) * self._responses

    @cached_property
    def num_pairs(self) -> np.ndarray:
        """[E] one where there are two responses."""
        return self._filled(self._rows, int(self._responses > 1))

    @cached_property
    def prompt_hashes(self) -> np.ndarray:
        """[E] no two alike."""
        import numpy as np

        return np.arange(self._rows, dtype=np.uint64)


class Sets(NamedTuple):
    """train, held_out: encoded or assumed. assumed: sentences. source: where they come from. longest: tokens of prompt
    and response that a row may have, where it is not known which it has.
    """

    train: EncodedSet | AssumedSet
    held_out: list[EncodedSet | AssumedSet]
    assumed: tuple[str, ...]
    source: str
    longest: int | None


def workload(run: RunSettings, shape: Shape, ranks: int, given: Given, *, flex: bool) -> Workload:
    """The work of a run over so many ranks. flex: attention in one call.

    Raises: UserError where nothing is known of the data; as `prepare_data` where they lie on this machine.
    """
    import numpy as np

    from prefopt.data.plan import make_plan
    from prefopt.train.rows import Rows

    needs = make_loss(run.loss).needs
    sets = open_sets(run, needs, given)
    shares = run.model.layout in ("auto", "shared")
    worth = 2 * shape.heads * shape.head_size * shape.layers / shape.base
    rows, *held_out = (Rows(s, needs, shares, worth) for s in (sets.train, *sets.held_out))  # type: ignore[arg-type]
    train = run.train
    plan = make_plan(
        rows.counts,
        rows.data.sources,
        batch_size=train.batch_size,
        epochs=train.epochs,
        max_steps=train.max_steps,
        seed=train.seed,
    )
    looked_at = [plan.steps[s] for s in range(min(len(plan), STEPS_LOOKED_AT))]
    budget = train.tokens_per_micro_batch
    if budget == "auto":
        budget = TrainSettings().tokens_per_micro_batch
    cuts = [rows.cut(step, ranks, budget) for step in looked_at]
    amounts = [_amount(rows, step) for step in looked_at]
    heavy = [
        _amount(
            rows, np.array(max((sum(share, ()) for share in c.micro_batches), key=lambda p: rows.work[list(p)].sum()))
        )
        for c in cuts
    ]
    most = max(
        (list(m) for c in cuts for share in c.micro_batches for m in share if m), key=lambda m: rows.costs[m].sum()
    )
    longest = int(np.argmax(rows.costs))
    every_place = np.arange(len(rows))
    heaviest = [_geometry(rows, np.array(places), flex) for places in (most, [longest])]
    longest_tokens = int(rows.costs[longest])
    assumed = list(sets.assumed)
    if sets.longest is not None:
        row = _longest_assumed(run, sets, flex, shares, "prompt_logps" in needs)
        if row.tokens > heaviest[0].tokens:
            heaviest = [row]
            assumed.append(
                f"memory is that of the longest row that data.max_length={run.data.max_length} allows,"
                f" {row.tokens:,} tokens in a micro-batch of its own"
            )
        longest_tokens = row.tokens
    return Workload(
        assumed=tuple(assumed),
        source=sets.source,
        unit=rows.unit,
        steps=len(plan),
        evaluations=_evaluations(run, plan) if held_out else 0,
        saves=_times(train.save_every, plan) if train.save_every != "never" else 1,
        train=_amount(rows, every_place),
        evaluated=_sum([_amount(r, np.arange(len(r))) for r in held_out]),
        step=_mean(amounts),
        slowest=_mean(heavy),
        micro_batches=float(np.mean([c.num_micro_batches for c in cuts])),
        heaviest=tuple(heaviest),
        longest_row=longest_tokens,
        extra_passes=len(needs & {"kl", "step"}) + (1 if needs & {"forward_kl", "reverse_kl"} else 0),
    )


def open_sets(run: RunSettings, needs: frozenset[str], given: Given) -> Sets:
    """The data: those of the run's folder, those that lie on this machine, or what is said or published of them.

    Raises: UserError where none of it is there.
    """
    if any(value is not None for value in given):
        return _assumed_sets(run, needs, given)
    described = _prepared_for(run)
    if described is not None:
        from prefopt.data.dataset import open_prepared

        prepared = open_prepared(described)
        return Sets(prepared.train, list(prepared.eval.values()), (), f"as prepared in {run.dir}", None)
    are_here = all(_is_here(source.path) for source in (*run.data.train, *run.data.eval.values()))
    if are_here and _has_tokenizer(run.model.tokenizer or run.model.path):
        from prefopt import demo
        from prefopt.launch import prepare_data

        cache = cache_folder(run.data)
        prepared = prepare_data(demo.resolve(run, cache, weights=False), cache)
        return Sets(prepared.train, list(prepared.eval.values()), (), "read on this machine", None)
    return _assumed_sets(run, needs, given)


def _prepared_for(run: RunSettings) -> dict[str, Any] | None:
    """What `data.json` of the run's folder says; None where there is none, or the folder is of other data."""
    folder = Path(run.dir)
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        return None
    told = manifest.get("settings", {})
    is_same = told.get("data") == asdict(run.data) and told.get("loss", {}).get("name") == run.loss["name"]
    return read_json(folder / "data.json") if is_same else None


def _is_here(path: str) -> bool:
    return path.startswith("demo://") or Path(path).expanduser().exists()


def _has_tokenizer(path: str) -> bool:
    try:
        check_tokenizer("model.tokenizer", path)
    except UserError:
        return False
    return _is_here(path)


def _assumed_sets(run: RunSettings, needs: frozenset[str], given: Given) -> Sets:
    """Sets of equal rows, by the command line and by what is published.

    Raises: UserError naming the options that would say what is not known.
    """
    known = [DATA_SETS.get(source.path) for source in run.data.train]
    rows = given.rows
    if rows is None:
        counts = [_published_rows(source) for source in run.data.train]
        if None in counts:
            raise _unknown(run.data.train[counts.index(None)].path, "--rows N")
        rows = round(sum(n * source.weight for n, source in zip(counts, run.data.train) if n is not None))
    first = next((k for k in known if k is not None), None)
    if first is None and (given.prompt is None or given.response is None):
        raise _unknown(run.data.train[0].path, "--rows N --prompt-tokens P --response-tokens R")
    prompt, response = (
        own if own is not None else published
        for own, published in zip(given[1:], (0, 0) if first is None else (first.prompt, first.response))
    )
    responses = 2 if needs & SEVERAL else 1
    said = "as given" if first is None or None not in given[1:] else first.source
    if prompt + response > run.data.max_length:
        raise UserError(
            f"{prompt} prompt tokens and {response} of a response are more than data.max_length={run.data.max_length}",
            "--prompt-tokens and --response-tokens say other lengths",
        )
    held_out = []
    size = run.data.eval_size
    if size:
        rest = round(size * rows) if size < 1 else min(int(size), rows - 1)
        rows -= rest
        held_out.append(AssumedSet("heldout", max(1, rest), prompt, response, responses))
    assumed = [
        f"all rows alike: {prompt:,} prompt tokens and {responses} responses of {response:,} ({said})",
    ]
    for name, source in run.data.eval.items():
        count = _published_rows(source)
        if count is None:
            count = 1000
            assumed.append(f"{name} has 1,000 rows")
        held_out.append(AssumedSet(name, count, prompt, response, responses))
    train = AssumedSet("train", max(1, rows), prompt, response, responses)
    origin = "--rows" if given.rows is not None else "published size"
    return Sets(train, list(held_out), tuple(assumed), origin, run.data.max_length)


def _published_rows(source: SourceSettings) -> int | None:
    known = DATA_SETS.get(source.path)
    count = None if known is None else known.splits.get(source.split)
    return count if count is None or source.limit is None else min(count, source.limit)


def _unknown(path: str, options: str) -> UserError:
    return UserError(f"nothing is known of the rows of {path}: it does not lie on this machine", f"say it: {options}")


def _longest_assumed(run: RunSettings, sets: Sets, flex: bool, shares: bool, prompt_logps: bool) -> Geometry:
    """Of a row of a usual prompt whose responses are as long as they may be."""
    from prefopt.plan.activations import geometry

    prompt = int(sets.train.prompt_lengths[0])
    count = int(sets.train.response_offsets[1])
    responses = [run.data.max_length - prompt] * count
    return geometry(prompt, responses, shared=shares, flex=flex, prompt_logps=prompt_logps)


def _amount(rows: Rows, places: np.ndarray) -> Amount:
    import numpy as np

    data = rows.data
    lengths = np.concatenate(([0], np.cumsum(data.response_lengths)))
    offsets = data.response_offsets
    predicted = 0 if rows.whole_responses else int((lengths[offsets[places + 1]] - lengths[offsets[places]]).sum())
    if rows.prompt_logps:
        predicted += int((data.prompt_lengths[places] - 1).sum())
    return Amount(
        rows=len(places),
        tokens=int(rows.costs[places].sum()),
        entries=int(rows.entries[places].sum()),
        predicted=predicted,
        responses=int(np.diff(offsets)[places].sum()),
        units=int(rows.counts[places].sum()),
    )


def _geometry(rows: Rows, places: np.ndarray, flex: bool) -> Geometry:
    from prefopt.plan.activations import geometry

    data, offsets = rows.data, rows.data.response_offsets
    parts = [
        geometry(
            int(data.prompt_lengths[p]),
            data.response_lengths[offsets[p] : offsets[p + 1]].tolist(),
            shared=rows.share_prompts,
            flex=flex,
            prompt_logps=rows.prompt_logps,
        )
        for p in places
    ]
    return sum(parts[1:], parts[0])


def _sum(parts: list[Amount]) -> Amount:
    return Amount(*(sum(values) for values in zip(*map(_values, parts)))) if parts else Amount(0, 0, 0, 0, 0, 0)


def _mean(parts: list[Amount]) -> Amount:
    return Amount(*(round(value / len(parts)) for value in _values(_sum(parts))))


def _values(amount: Amount) -> tuple[int, ...]:
    return amount.rows, amount.tokens, amount.entries, amount.predicted, amount.responses, amount.units


def _evaluations(run: RunSettings, plan: Plan) -> int:
    """Before step 1, whenever it is due, and at the end."""
    return 0 if run.train.eval_every == "never" else 1 + _times(run.train.eval_every, plan)


def _times(every: str | int, plan: Plan) -> int:
    if every == "epoch":
        return len(plan.epoch_ends)
    if every == "never":
        return 1
    return len(plan) // int(every) + (len(plan) % int(every) > 0)
