"""A whole run on paper: its stages, each with memory, operations, traffic, time and disk."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prefopt.losses import make_loss
from prefopt.plan.activations import logits_bytes
from prefopt.plan.advice import Verdict, judge
from prefopt.plan.memory import Memories, Memory, memory_of
from prefopt.plan.operations import Amount, operations_of
from prefopt.plan.place import Place, Wished, find_place
from prefopt.plan.rows import Given
from prefopt.plan.shape import Shape, model_shape
from prefopt.plan.sharding import Sharding, Traffic, forward_traffic, precision_of, sharding_of, traffic_of
from prefopt.plan.workload import Workload, workload
from prefopt.settings import ModelSettings, RunSettings

TOKENS_PER_SECOND_OF_A_WORKER = 3e5
"""Tokenised by one process: 1,200 HH pairs a second of 250 tokens, docs/benchmarks.md."""
USUAL_WORKERS = 4
DISK_RATE = 1e9
"""Bytes a second, assumed: a checkpoint is written, read once more for its digest, and synced."""


@dataclass(frozen=True)
class Stage:
    """times: how often. seconds: of one time. operations, sent: of one rank and time; sent in bytes. memory: None where
    no device is used. written: bytes to disk, each time.
    """

    name: str
    times: int
    seconds: float
    operations: float = 0.0
    sent: float = 0.0
    memory: Memory | None = None
    written: float = 0.0

    @property
    def total_seconds(self) -> float:
        return self.times * self.seconds


@dataclass(frozen=True)
class Disk:
    """Bytes at most: checkpoints (each of them, and how many at once), the model in the end, cached data, columns."""

    checkpoint: int
    checkpoints: int
    model: int
    data: int
    columns: int

    @property
    def total(self) -> int:
        return self.checkpoint * self.checkpoints + self.model + self.data + self.columns


@dataclass(frozen=True)
class Estimate:
    """All that is said of a run. model: as the run names it. compute, exchange, exposed: seconds of a step in products,
    on the network in all, and of the latter those in which nothing is computed. assumed: sentences.
    """

    run: RunSettings
    model: str
    shape: Shape
    place: Place
    sharding: Sharding
    work: Workload
    memories: Memories
    traffic: Traffic
    stages: tuple[Stage, ...]
    compute: float
    exchange: float
    exposed: float
    disk: Disk
    verdict: Verdict
    assumed: tuple[str, ...]

    @property
    def step_seconds(self) -> float:
        return self.compute + self.exposed

    @property
    def seconds(self) -> float:
        return sum(stage.total_seconds for stage in self.stages)


def estimate(run: RunSettings, wished: Wished, given: Given, model: ModelSettings | None = None) -> Estimate:
    """The estimate of a checked run. model: where its model really lies, if the run names it otherwise.

    Raises: UserError where model, data or machine are not known.
    """
    loss, named = make_loss(run.loss), run.model.path
    run = replace(run, model=model or run.model)
    shape = model_shape(run.model, "rewards" in loss.needs)
    precision = precision_of(run)
    place = find_place(run, wished, shape, precision.compute)
    sharding = sharding_of(run, place.ranks)
    work = workload(run, shape, place.ranks, given, flex=_is_flex(run, place))
    memories = memory_of(
        run, shape, precision, sharding, work.heaviest, micro_batches=work.micro_batches, is_cpu=place.is_cpu
    )
    chunked = max(logits_bytes(shape, precision, batch).is_chunked for batch in work.heaviest)
    every = run.model.checkpoint_every
    step = operations_of(shape, work.slowest, every, chunked)
    operations = step.total + work.extra_passes * step.forward
    traffic = traffic_of(shape, precision, sharding, work.micro_batches)
    compute, exchange = operations / place.rate, traffic.total / place.network.rate
    hidden = compute if sharding.splits_weights else step.backward / place.rate / work.micro_batches
    exposed = max(0.0, exchange - hidden) if sharding.overlaps else exchange

    def forward_stage(name: str, times: int, amount: Amount, memory: Memory) -> Stage:
        found = operations_of(shape, amount, None, False).forward / place.ranks
        passes = work.micro_batches * amount.tokens / max(1, work.step.tokens)
        sent = forward_traffic(shape, precision, sharding) * passes
        seconds = max(found / place.rate, sent / place.network.rate)
        return Stage(name, times, seconds, found, sent, memory)

    disk = _disk(run, shape, memories, work, loss.needs)
    stages = [Stage("prepare", 1, _prepare_seconds(run, work), written=disk.data)]
    scorers = _scorers(run, loss.needs)
    if scorers:
        stages.append(forward_stage("score", scorers, _both(work.train, work.evaluated), memories.score))
    stages.append(Stage("train step", work.steps, compute + exposed, operations, traffic.total, memories.train))
    if work.evaluations:
        stages.append(forward_stage("evaluate", work.evaluations, work.evaluated, memories.evaluate))
    stages.append(Stage("save", work.saves, 2 * disk.checkpoint / DISK_RATE, 0, 0, memories.save, disk.checkpoint))
    return Estimate(
        run=run,
        model=named,
        shape=shape,
        place=place,
        sharding=sharding,
        work=work,
        memories=memories,
        traffic=traffic,
        stages=tuple(stages),
        compute=compute,
        exchange=exchange,
        exposed=exposed,
        disk=disk,
        verdict=judge(run, shape, place, sharding, work, memories),
        assumed=(*work.assumed, *place.assumed, *_assumed(run, place, sharding, work)),
    )


def _is_flex(run: RunSettings, place: Place) -> bool:
    return run.model.attention == "flex" or (run.model.attention == "auto" and not place.is_cpu)


def _scorers(run: RunSettings, needs: frozenset[str]) -> int:
    """Models that score all rows before the first update."""
    models = sum(m.kind in ("implicit", "reward") for m in run.data.margins) if "margins" in needs else 0
    return models + (1 if needs & {"reference", "reference_tokens"} else 0) + (1 if "kl" in needs else 0)


def _prepare_seconds(run: RunSettings, work: Workload) -> float:
    tokens = work.train.tokens + work.evaluated.tokens
    return tokens / TOKENS_PER_SECOND_OF_A_WORKER / (run.data.num_workers or USUAL_WORKERS)


def _disk(run: RunSettings, shape: Shape, memories: Memories, work: Workload, needs: frozenset[str]) -> Disk:
    whole = _both(work.train, work.evaluated)
    columns = 8 * (whole.predicted if "reference_tokens" in needs else whole.responses if "reference" in needs else 0)
    if "margins" in needs:
        columns += 8 * whole.responses * len(run.data.margins)
    # One is written before the oldest goes; the best is kept besides.
    at_once = min(work.saves, run.train.keep_checkpoints) + (work.saves > run.train.keep_checkpoints)
    at_once += run.train.best_metric is not None
    trained = precision_of(run)
    return Disk(
        checkpoint=memories.states.saved,
        checkpoints=at_once,
        model=shape.adapters * trained.adapters if shape.adapters else shape.base * trained.weights,
        # 4 bytes for an id and as many for the text it stands for, and what a row has besides.
        data=8 * (whole.tokens + whole.responses) + 250 * whole.rows,
        columns=columns,
    )


def _both(a: Amount, b: Amount) -> Amount:
    return Amount(
        a.rows + b.rows,
        a.tokens + b.tokens,
        a.entries + b.entries,
        a.predicted + b.predicted,
        a.responses + b.responses,
        a.units + b.units,
    )


def _assumed(run: RunSettings, place: Place, sharding: Sharding, work: Workload) -> list[str]:
    found = [
        f"preparing: {TOKENS_PER_SECOND_OF_A_WORKER:,.0f} tokens a second of each of"
        f" {run.data.num_workers or USUAL_WORKERS} workers; saving: {DISK_RATE / 1e9:g} GB/s, written and read again",
        "not counted: starting and loading the model"
        + (f", sampling {run.sample.count} answers twice" if run.sample.count else "")
        + (f" and every {run.sample.every} steps" if run.sample.every != "never" else ""),
    ]
    if run.model.layout in ("auto", "shared"):
        found.append("prompts are shared by their responses, which this model allows as far as is known")
    if run.train.tokens_per_micro_batch == "auto":
        found.append("train.tokens_per_micro_batch=auto is measured when the run starts; here it is 8,192")
    if place.ranks > 1:
        how = "hidden behind what is computed" if sharding.overlaps else "not hidden behind what is computed"
        found.append(f"{sharding.name}: the exchange is {how}{', as far as it lasts' if sharding.overlaps else ''}")
    return found
