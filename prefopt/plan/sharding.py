"""How a model and its states lie over ranks: bytes of each part, and what ranks send each other in a step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from prefopt.optimiser_bytes import optimiser_bytes
from prefopt.plan.activations import Precision
from prefopt.plan.shape import Shape
from prefopt.settings import RunSettings

UPDATED_AT_ONCE = 2**26
"""As `AT_ONCE` of `prefopt.train.bfloat16`, which imports torch; a test compares the two."""

NF4_BYTES, INT8_BYTES = 4.127 / 8, 1.0
"""Of a weight under adapters: 4 bits and 0.127 of scales (QLoRA, arXiv 2305.14314), or 8."""


@dataclass(frozen=True)
class Sharding:
    """What is split over the ranks.

    engine: one, ddp, zero or fsdp. stage: of ZeRO: from 1 on optimiser states and masters are split, from 2 on
    gradients, from 3 on weights; FSDP splits what stage 3 splits. bucket: gradients that are exchanged at a time, in
    numbers, and buckets: how many of them lie in memory. live: numbers of whole weights at most, at stage 3.
    overlaps: ranks talk while they compute. gathers_once: weights that were gathered for the forward pass stay for the
    backward pass. host_states, host_weights: kept in the host's memory.
    """

    engine: str
    ranks: int
    stage: int = 0
    bucket: int = 0
    buckets: int = 0
    live: int = 0
    overlaps: bool = True
    gathers_once: bool = False
    host_states: bool = False
    host_weights: bool = False

    @property
    def name(self) -> str:
        """In words."""
        if self.engine == "one":
            return "one process"
        if self.engine == "ddp":
            return "DDP"
        offload = " and ".join(
            what for what, is_so in (("states", self.host_states), ("weights", self.host_weights)) if is_so
        )
        kind = "FSDP2" if self.engine == "fsdp" else f"ZeRO-{self.stage}"
        return f"{kind} with {offload} on the host" if offload else kind

    @property
    def splits_weights(self) -> bool:
        """Whether each rank holds a part of the weights only."""
        return self.stage == 3

    def share(self, stage: int) -> int:
        """Over how many ranks that is split which is split from `stage` on."""
        return self.ranks if self.stage >= stage else 1


def sharding_of(run: RunSettings, ranks: int) -> Sharding:
    """What the recipe's engine splits over so many ranks, with DeepSpeed's own defaults where the recipe is silent."""
    config, fsdp = run.deepspeed.config, _fsdp(run)
    if fsdp is not None:
        offload = bool(fsdp.get("cpu_offload"))
        once = not fsdp.get("reshard_after_forward", True)
        return Sharding("fsdp", ranks, stage=3, gathers_once=once, host_states=offload, host_weights=offload)
    if config is None:
        return Sharding("one" if ranks == 1 else "ddp", ranks)
    zero: dict[str, Any] = config.get("zero_optimization", {})
    stage = int(zero.get("stage", 0))
    overlaps = bool(zero.get("overlap_comm", stage == 3))

    def is_offloaded(what: str) -> bool:
        return (zero.get(what) or {}).get("device", "none") != "none"

    return Sharding(
        engine="zero",
        ranks=ranks,
        stage=stage,
        bucket=int(zero.get("reduce_bucket_size", 5e8)) if stage and zero.get("contiguous_gradients", True) else 0,
        buckets=2 if overlaps and stage < 3 else 1,
        live=int(zero.get("stage3_max_live_parameters", 1e9)) + int(zero.get("stage3_prefetch_bucket_size", 5e7)),
        overlaps=overlaps,
        host_states=is_offloaded("offload_optimizer"),
        host_weights=is_offloaded("offload_param"),
    )


def _fsdp(run: RunSettings) -> dict[str, Any] | None:
    """FSDP2's keys; None where it is off."""
    keys = asdict(run).get("fsdp") or {}
    return keys if keys.get("strategy", "none") != "none" else None


def precision_of(run: RunSettings) -> Precision:
    """Bytes of the run's numbers. DeepSpeed's bfloat16 casts everything, FSDP2's whatever it gathers; without them
    adapters stay float32.
    """
    weights = 2 if run.model.dtype == "bfloat16" else 4
    low = run.train.autocast == "bf16"
    if run.deepspeed.config is not None or _fsdp(run) is not None:
        size = 2 if low or weights == 2 else 4
        return Precision(size, size, False)
    return Precision(weights, 4, low and weights == 4)


@dataclass(frozen=True)
class States:
    """Bytes of one rank. weights, gradients, masters, optimiser: on the device. host: in the host's memory instead.
    buffers: what is held whole while a step computes. bucket: gradients on their way to other ranks. update: what the
    update itself needs besides. saved: of the whole model: what a checkpoint holds, weights, masters, optimiser.
    """

    weights: int
    gradients: int
    masters: int
    optimiser: int
    buffers: int
    bucket: int
    update: int
    host: int
    saved: int


def states_of(shape: Shape, precision: Precision, sharding: Sharding, run: RunSettings, is_cpu: bool) -> States:
    """Weights, gradients, masters and optimiser of one rank, counted."""
    trained = trained_bytes(shape, precision, sharding)
    own = _weight_bytes(shape, precision, run.model.base) + shape.trainable * (
        trained - _gathered_bytes(shape, precision)
    )
    weights = own / sharding.share(3)
    gradients = shape.trainable * trained / sharding.share(2)
    masters_whole = 4 * shape.trainable if _has_masters(run, trained, sharding) else 0
    optimiser_whole = optimiser_bytes(shape.trainable_shapes, run.optim.name)
    masters, optimiser = masters_whole / sharding.share(1), optimiser_whole / sharding.share(1)
    host = (masters + optimiser if sharding.host_states else 0) + (weights if sharding.host_weights else 0)
    if sharding.host_states:
        masters = optimiser = 0
    if sharding.host_weights:
        weights = 0
    return States(
        weights=round(weights),
        gradients=round(gradients),
        masters=round(masters),
        optimiser=round(optimiser),
        buffers=round(_buffers(shape, precision, sharding, trained)),
        bucket=_bucket(shape, sharding, is_cpu) * trained,
        update=round(_update(shape, sharding, trained, masters_whole, run.optim.name)),
        host=round(host),
        saved=shape.trainable * trained + masters_whole + optimiser_whole,
    )


def _gathered_bytes(shape: Shape, precision: Precision) -> int:
    """Of a trained weight as it computes."""
    return precision.adapters if shape.adapters else precision.weights


def trained_bytes(shape: Shape, precision: Precision, sharding: Sharding) -> int:
    """Of a trained weight as a rank holds it, and of its gradient: FSDP2's shards of trained weights are float32."""
    return 4 if sharding.engine == "fsdp" else _gathered_bytes(shape, precision)


def _weight_bytes(shape: Shape, precision: Precision, base: str) -> float:
    plain = shape.base * precision.weights + shape.adapters * precision.adapters
    if base == "plain":
        return plain
    return plain + shape.in_layers * ((NF4_BYTES if base == "nf4" else INT8_BYTES) - precision.weights)


def _has_masters(run: RunSettings, trained: int, sharding: Sharding) -> bool:
    """float32 copies of what is trained. ZeRO-1 and 2 keep a flat copy of float32 weights too, ZeRO-3 does not."""
    if sharding.engine == "zero":
        return trained == 2 or sharding.stage in (1, 2)
    if sharding.engine == "fsdp":
        return False  # its shards are float32
    return trained == 2 and run.optim.bfloat16_weights == "masters"


def _bucket(shape: Shape, sharding: Sharding, is_cpu: bool) -> int:
    """Numbers. A GPU gives memory when it is asked for, a CPU when it is written to."""
    return sharding.buckets * (min(sharding.bucket, shape.trainable) if is_cpu else sharding.bucket)


def _buffers(shape: Shape, precision: Precision, sharding: Sharding, trained: int) -> float:
    """One matrix' gradient before it is added to what is there, and whole weights where they are split."""
    found: float = _widest_trained(shape) * trained
    if sharding.splits_weights and sharding.ranks > 1:
        found += min(_whole(shape, sharding), shape.total) * precision.weights
    return found


def _whole(shape: Shape, sharding: Sharding) -> int:
    """Numbers of weights that are whole at a time. FSDP2: embedding and head, the layer at hand and the next."""
    if sharding.engine == "zero":
        return sharding.live
    return shape.total if sharding.gathers_once else shape.total - (shape.layers - 2) * shape.layer


def _widest_trained(shape: Shape) -> int:
    return max((prod(s) for s in shape.trainable_shapes), default=0)


def _update(shape: Shape, sharding: Sharding, trained: int, masters: int, optimiser: str) -> float:
    """float32 gradients that the update works on, where the gradients at hand are others."""
    if sharding.engine == "zero" and sharding.stage:
        return 4 * shape.trainable / sharding.ranks
    if masters:
        return 4 * min(shape.trainable, max(UPDATED_AT_ONCE, _widest_trained(shape)))
    return 4 * shape.trainable if optimiser == "rmsprop" else 0


@dataclass(frozen=True)
class Traffic:
    """Bytes that each rank sends in one optimiser step. gradients, weights: for what."""

    gradients: int
    weights: int

    @property
    def total(self) -> int:
        return self.gradients + self.weights


def traffic_of(shape: Shape, precision: Precision, sharding: Sharding, micro_batches: float) -> Traffic:
    """By rings: a reduction to shares, or a gathering of shares, of B bytes sends B (N - 1) / N from each of N ranks.

    DDP: the gradient is reduced to shares and gathered, at the last micro-batch. ZeRO-1: the same, but what is gathered
    are the updated weights. ZeRO-2: reduced at every micro-batch. ZeRO-3 and FSDP: so too, and the weights are gathered
    for each forward and each backward pass (Rajbhandari et al. 2020, arXiv 1910.02054, section 7); FSDP2's gradients
    travel as float32. micro_batches: of a rank.
    """
    ring = (sharding.ranks - 1) / sharding.ranks
    gradient = shape.trainable * trained_bytes(shape, precision, sharding) * ring
    if sharding.splits_weights:
        whole = (shape.base * precision.weights + shape.adapters * precision.adapters) * ring
        times = micro_batches * (1 if sharding.gathers_once else 2)
        return Traffic(round(micro_batches * gradient), round(times * whole))
    if sharding.engine == "zero" and sharding.stage:
        times = micro_batches if sharding.stage == 2 else 1
        return Traffic(round(times * gradient), round(gradient))
    return Traffic(round(2 * gradient), 0)


def forward_traffic(shape: Shape, precision: Precision, sharding: Sharding) -> int:
    """Bytes that each rank sends in one forward pass without gradients."""
    if not sharding.splits_weights:
        return 0
    whole = shape.base * precision.weights + shape.adapters * precision.adapters
    return round(whole * (sharding.ranks - 1) / sharding.ranks)
