"""Whether a run fits its devices, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from prefopt.plan.activations import Geometry
from prefopt.plan.machines import GIB
from prefopt.plan.memory import Memories, memory_of
from prefopt.plan.place import Place
from prefopt.plan.shape import Shape, model_shape
from prefopt.plan.sharding import Sharding, precision_of, sharding_of
from prefopt.plan.workload import Workload
from prefopt.settings import DeepSpeedSettings, LoraSettings, RunSettings

COMFORT = 0.9
"""Share of a device's memory up to which a run is said to fit: fragments and what nobody foresaw take the rest."""

MORE_GPUS = (4, 8)
"""As many as machines have, and as the papers had."""


@dataclass(frozen=True)
class Verdict:
    """word: fits, tight or does not fit. stage: that which takes most. needed, memory: bytes of it, and of a device.
    advice: sentences.
    """

    word: str
    stage: str
    needed: int
    memory: int
    advice: tuple[str, ...]


def judge(
    run: RunSettings, shape: Shape, place: Place, sharding: Sharding, work: Workload, memories: Memories
) -> Verdict:
    """The verdict; with advice where it is not that the run fits."""
    stages = {"score": memories.score, "train": memories.train, "evaluate": memories.evaluate, "save": memories.save}
    stage = max(stages, key=lambda name: stages[name].total)
    needed, memory = stages[stage].total, round(place.device.memory)
    word = _word(needed, memory)
    advice = () if word == "fits" else tuple(_advice(run, shape, place, sharding, work, memory))
    return Verdict(word, stage, needed, memory, advice)


def _word(needed: int, memory: int) -> str:
    return "fits" if needed <= COMFORT * memory else "tight" if needed <= memory else "does not fit"


def _advice(
    run: RunSettings, shape: Shape, place: Place, sharding: Sharding, work: Workload, memory: int
) -> Iterator[str]:
    """What each change by itself would bring, and all that change no number together."""
    together, num_merged = run, 0
    for words, changed in _changes(run, sharding, work):
        yield f"{words}: {_outcome(changed, shape, place, work, memory)}"
        merged = _merged(together, changed, run)
        together, num_merged = merged, num_merged + (merged is not together)
    if num_merged > 1:
        yield f"all that change no number, together: {_outcome(together, shape, place, work, memory)}"
    if run.model.lora is None and num_merged:
        adapted = replace(together, model=replace(together.model, lora=LoraSettings()))
        yield f"all that and model.lora={{r: 16}}: {_outcome(adapted, shape, place, work, memory)}"
    for per_node in () if place.is_cpu or place.num_nodes > 1 else MORE_GPUS:
        if per_node > place.per_node and sharding_of(run, per_node).splits_weights:
            wider = replace(place, per_node=per_node)
            yield f"launch.gpus_per_node={per_node}: {_outcome(run, shape, wider, work, memory)}"
    if sharding.splits_weights:
        yield "more nodes or GPUs: weights, gradients and states are divided among them"


def _changes(run: RunSettings, sharding: Sharding, work: Workload) -> Iterator[tuple[str, RunSettings]]:
    if sharding.ranks > 1 and sharding.engine != "fsdp" and sharding.stage < 3:
        config = {"zero_optimization": {"stage": 3, "overlap_comm": True}}
        yield "deepspeed=zero3", replace(run, deepspeed=DeepSpeedSettings(config))
    if run.model.checkpoint_every != 1:
        yield "model.checkpoint_every=1", replace(run, model=replace(run.model, checkpoint_every=1))
    tokens = max(batch.tokens for batch in work.heaviest)
    if tokens > work.longest_row:
        words = f"train.tokens_per_micro_batch={work.longest_row}"
        yield words, replace(run, train=replace(run.train, tokens_per_micro_batch=work.longest_row))
    if run.model.dtype == "float32":
        yield "model.dtype=bfloat16", replace(run, model=replace(run.model, dtype="bfloat16"))
    if run.model.lora is None:
        yield "model.lora={r: 16}", replace(run, model=replace(run.model, lora=LoraSettings()))


def _merged(together: RunSettings, changed: RunSettings, run: RunSettings) -> RunSettings:
    """`together` with what `changed` changes of `run`, which is one group."""
    if changed.deepspeed != run.deepspeed:
        return replace(together, deepspeed=changed.deepspeed)
    if changed.train != run.train:
        return replace(together, train=changed.train)
    if changed.model.checkpoint_every == run.model.checkpoint_every:
        return together  # another precision, or adapters: they change the numbers
    return replace(together, model=replace(together.model, checkpoint_every=changed.model.checkpoint_every))


def _outcome(run: RunSettings, shape: Shape, place: Place, work: Workload, memory: int) -> str:
    sizes = model_shape(run.model, shape.has_scalar_head) if run.model.lora is not None else shape
    budget = run.train.tokens_per_micro_batch
    heaviest = tuple(_cut(batch, budget if isinstance(budget, int) else batch.tokens, work) for batch in work.heaviest)
    sharding = sharding_of(run, place.ranks)
    micro_batches = work.micro_batches * max(b.tokens for b in work.heaviest) / max(b.tokens for b in heaviest)
    found = memory_of(
        run, sizes, precision_of(run), sharding, heaviest, micro_batches=micro_batches, is_cpu=place.is_cpu
    )
    needed = max(m.total for m in (found.score, found.train, found.evaluate, found.save))
    return f"{needed / GIB:.1f} GiB, {_word(needed, memory)}"


def _cut(batch: Geometry, budget: int, work: Workload) -> Geometry:
    """A micro-batch of the same rows that holds the budget, or the longest row."""
    share = min(1.0, max(budget, work.longest_row) / batch.tokens)
    return Geometry(
        round(share * batch.tokens),
        round(share * batch.keys),
        round(share * batch.masked),
        round(share * batch.predicted),
        round(share * batch.prompt_predicted),
    )
