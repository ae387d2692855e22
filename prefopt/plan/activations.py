"""Bytes that a forward pass leaves for the backward pass, by what each operation of a Llama-like layer saves.

tests/plan/test_activations.py holds this against what autograd does save, byte by byte; docs/plan.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from prefopt.plan.shape import Shape

MAX_LOGITS = 2**26
"""As `prefopt.model.logps` has it, which imports torch; a test compares the two."""

_SITES = {"q_proj": "attention in", "k_proj": "attention in", "v_proj": "attention in"}
_SITES |= {"gate_proj": "mlp in", "up_proj": "mlp in"}
"""Linear maps that read the same tensor; any other has one of its own."""


@dataclass(frozen=True)
class Precision:
    """Bytes of a number. weights: of the model. adapters: of trained adapters. autocast: products are bfloat16."""

    weights: int
    adapters: int
    autocast: bool

    @property
    def compute(self) -> int:
        """Of what matrix products give."""
        return 2 if self.autocast else self.weights


@dataclass(frozen=True)
class Geometry:
    """A micro-batch. tokens: on the axis. keys: over all attention calls, which copy a prompt's for each response.
    masked: places of all masks that are written out. predicted: response tokens; prompt_predicted: prompt tokens whose
    log-probability a method asks for.
    """

    tokens: int
    keys: int
    masked: int
    predicted: int
    prompt_predicted: int = 0

    def __add__(self, other: Geometry) -> Geometry:
        return Geometry(
            self.tokens + other.tokens,
            self.keys + other.keys,
            self.masked + other.masked,
            self.predicted + other.predicted,
            self.prompt_predicted + other.prompt_predicted,
        )


def geometry(prompt: int, responses: list[int], *, shared: bool, flex: bool, prompt_logps: bool) -> Geometry:
    """Of one row. prompt, responses: tokens, the last of a response included. flex: one call of FlexAttention."""
    times = 1 if shared else len(responses)
    tokens = times * prompt + sum(responses) - len(responses)
    asked = prompt - 1 if prompt_logps else 0
    if flex or not shared:
        return Geometry(tokens, tokens, 0, sum(responses), asked)
    keys = sum(prompt + n - 1 for n in responses)
    masked = sum((n - 1) * (prompt + n - 1) for n in responses[1:])
    return Geometry(tokens, keys, masked, sum(responses), asked)


def layer_bytes(shape: Shape, precision: Precision, batch: Geometry) -> int:
    """What one layer saves for its backward pass."""
    h, c, w = shape.hidden, precision.compute, precision.weights
    queries, values = shape.heads * shape.head_size, shape.key_heads * shape.head_size
    is_adapted = bool(shape.adapters)
    norms = shape.num_norms * (4 * h + 4)  # the input in float32, and its scale
    if shape.normalises_heads:
        norms += 4 * (queries + values) + 4 * (shape.heads + shape.key_heads)
    if not is_adapted:
        norms += w * shape.num_norms * h + (c * (queries + values) if shape.normalises_heads else 0)
    attention = 2 * c * queries + 4 * shape.heads  # queries, outputs, the logarithms of the softmax' sums
    mlp = (3 if shape.is_gated else 1) * c * shape.inner
    per_token = norms + _linear_inputs(shape, precision) + attention + mlp
    return per_token * batch.tokens + 2 * c * values * batch.keys + c * batch.masked


def _linear_inputs(shape: Shape, precision: Precision) -> int:
    """Of one token: what the linear maps of a layer keep to give the gradient of their weights, or of their adapters'.

    Maps that read the same tensor share it, unless each has to cast it for itself.
    """
    queries = shape.heads * shape.head_size
    if not shape.adapters:
        readers = (3 + (2 if shape.is_gated else 1)) if precision.autocast else 2
        return precision.compute * (readers * shape.hidden + queries + shape.inner)
    size = 2 if precision.autocast else precision.adapters
    if precision.autocast or precision.adapters != precision.weights:
        read = sum(inputs for _, inputs, _ in shape.adapted)
    else:
        read = sum({_SITES.get(name, name): inputs for name, inputs, _ in shape.adapted}.values())
    return size * (read + len(shape.adapted) * shape.rank)


def cast_weights(shape: Shape, precision: Precision) -> int:
    """Copies of all weights in bfloat16 that autocast keeps from the forward to the backward pass."""
    if not precision.autocast:
        return 0
    head = 0 if shape.has_scalar_head else shape.vocabulary * shape.hidden
    return 2 * (shape.in_layers + shape.adapters + head)


def ends_bytes(shape: Shape, precision: Precision, batch: Geometry) -> int:
    """What lies outside of the layers but for logits: ids, rotary tables, the last norm, states for the head."""
    h = shape.hidden
    last = 4 * h + 4 + (0 if shape.adapters else precision.weights * h)
    per_token = 8 + 2 * precision.weights * shape.head_size + last
    states = batch.predicted + batch.prompt_predicted
    return per_token * batch.tokens + precision.compute * h * (0 if shape.has_scalar_head else states)


@dataclass(frozen=True)
class Logits:
    """Bytes. kept: from forward to backward pass. backward, forward: at most in that pass, kept ones included."""

    kept: int
    backward: int
    forward: int
    is_chunked: bool


def logits_bytes(shape: Shape, precision: Precision, batch: Geometry) -> Logits:
    """Of the head: a log-softmax in float32 is kept, unless the rows are so many that chunks are computed again.

    In the backward pass the chunk's log-softmax, the loss's gradient and that of the logits lie beside each other.
    """
    if shape.has_scalar_head:
        return Logits(0, 0, 0, False)
    v = shape.vocabulary
    most = max(1, MAX_LOGITS // v)
    parts = [n for n in (batch.predicted, batch.prompt_predicted) if n]
    kept = sum(4 * n * v for n in parts if n <= most)
    largest = max((min(n, most) for n in parts), default=0)
    chunk = 4 * largest * v
    is_chunked = any(n > most for n in parts)
    low = 2 * largest * v if precision.compute == 2 else 0
    others = kept - (0 if is_chunked else chunk)
    return Logits(kept, others + 3 * chunk, others + 2 * chunk + low, is_chunked)


@dataclass(frozen=True)
class Activations:
    """Bytes. kept: between forward and backward pass, logits left out. on_host: of these, in the host's memory.
    backward: what the backward pass adds at most (logits, or one layer's gradients and what is computed again).
    forward: the most of a pass without gradients.
    """

    kept: int
    on_host: int
    logits: int
    backward: int
    forward: int


def activations(
    shape: Shape, precision: Precision, batch: Geometry, every: int | None, offload: bool = False
) -> Activations:
    """Of one micro-batch. every: each so-manyth layer, the first among them, keeps its input only."""
    one = layer_bytes(shape, precision, batch)
    recomputed = 0 if every is None else ceil(shape.layers / every)
    residual = 4 if precision.autocast else precision.weights
    inputs = recomputed * residual * shape.hidden * batch.tokens
    ends = ends_bytes(shape, precision, batch)
    kept = (shape.layers - recomputed) * one + inputs + ends
    on_host = inputs if offload else 0
    logits = logits_bytes(shape, precision, batch)
    # Where an MLP's product has given the gradients of its two factors, and what it had saved is gone; the residual's.
    widths = (2 if shape.is_gated else 1) * shape.inner + 2 * shape.hidden
    layer = precision.compute * widths * batch.tokens + (one if recomputed else 0)
    through = precision.compute * batch.tokens * ((4 if shape.is_gated else 2) * shape.inner + 3 * shape.hidden)
    return Activations(
        kept=kept - on_host,
        on_host=on_host,
        logits=logits.backward,
        backward=max(0, layer - logits.backward - ends),  # the head's part is over by then
        forward=max(through, logits.forward),
    )
