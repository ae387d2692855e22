"""Memory of one rank in each stage of a run, by part."""

from __future__ import annotations

from dataclasses import dataclass

from prefopt.losses import make_loss
from prefopt.needs import LIVE
from prefopt.plan.activations import Geometry, Precision, activations, cast_weights
from prefopt.plan.machines import GIB
from prefopt.plan.shape import Shape
from prefopt.plan.sharding import Sharding, States, states_of
from prefopt.settings import RunSettings

FRAMEWORK = {"gpu": 1.0 * GIB, "cpu": 0.5 * GIB}
"""Assumed of a GPU: CUDA's context, buffers of cuBLAS and NCCL. Of a CPU process: the libraries, as measured."""

PARTS = ("weights", "gradients", "masters", "optimiser", "activations", "logits", "buffers", "reference", "framework")


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank's device by part (`PARTS`). host: what it needs of the host's memory besides. moment: of a
    training step, that which takes most: backward, its beginning, when all activations are there; gradients, its end;
    or update.
    """

    parts: dict[str, int]
    host: int = 0
    moment: str = ""

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Memories:
    """score: before the first update. train, evaluate, save. states: what they have in common."""

    score: Memory
    train: Memory
    evaluate: Memory
    save: Memory
    states: States


def memory_of(
    run: RunSettings,
    shape: Shape,
    precision: Precision,
    sharding: Sharding,
    heaviest: tuple[Geometry, ...],
    *,
    micro_batches: float,
    is_cpu: bool,
) -> Memories:
    """heaviest: micro-batches of which one takes most. micro_batches: of a rank in a step."""
    states = states_of(shape, precision, sharding, run, is_cpu)
    model = run.model
    found = [activations(shape, precision, b, model.checkpoint_every, model.offload_activations) for b in heaviest]
    most = max(found, key=lambda a: a.kept + a.logits + a.backward)
    forward = max(a.forward for a in found)
    casts = cast_weights(shape, precision)
    own = shape.base * precision.weights
    needs = make_loss(run.loss).needs
    another = model.reference not in (None, model.path)
    live = own if needs & LIVE and (another or model.lora is None) else 0
    apart = own if needs & {"reference", "margins"} and another else 0
    framework = round(FRAMEWORK["cpu" if is_cpu else "gpu"])
    gathers = states.buffers if sharding.splits_weights else 0  # and ZeRO-3's bucket, which stays
    gathers += states.bucket if sharding.stage == 3 else 0

    def memory(host: int = 0, moment: str = "", **parts: int) -> Memory:
        whole = {"weights": states.weights, "masters": states.masters, "framework": framework, "reference": live}
        whole |= parts
        return Memory({part: round(whole.get(part, 0)) for part in PARTS}, states.host + host, moment)

    kept = states.gradients if sharding.engine == "ddp" else 0  # its buckets stay
    ready = states.optimiser if sharding.engine == "zero" else 0  # DeepSpeed makes them at once, others in step 1
    keeps = sharding.engine == "ddp" or (sharding.engine == "zero" and sharding.stage == 3)
    # Of a step's only micro-batch, gradients come as activations go; DeepSpeed's buckets are written to meanwhile.
    early = states.gradients if keeps or micro_batches > 1 else 0
    bucket = states.bucket if not is_cpu or sharding.stage == 3 else 0
    backward = memory(
        most.on_host,
        "backward",
        gradients=early,
        optimiser=states.optimiser,
        activations=most.kept + most.backward + casts,
        logits=most.logits,
        buffers=states.buffers + bucket,
    )
    end = memory(
        0,
        "gradients",
        gradients=states.gradients,
        optimiser=states.optimiser,
        activations=most.kept // shape.layers + casts,
        buffers=states.buffers + states.bucket,
    )
    update = memory(0, "update", gradients=states.gradients, optimiser=states.optimiser, buffers=states.update)
    gathered = shape.base * precision.weights if sharding.splits_weights else 0
    return Memories(
        score=memory(
            gradients=kept, optimiser=ready, activations=forward + casts, buffers=gathers, reference=max(live, apart)
        ),
        train=max(backward, end, update, key=lambda m: m.total),
        evaluate=memory(gradients=kept, optimiser=states.optimiser, activations=forward + casts, buffers=gathers),
        save=memory(gathered, gradients=kept, optimiser=states.optimiser, buffers=gathers),
        states=states,
    )
