"""The floor of a training step: its floating-point operations at the rate of the machine's own matrix product."""

from __future__ import annotations

import time

from bench.llama import Shape


def linears(shape: Shape) -> list[tuple[int, int]]:
    """(inputs, outputs) of the linear maps of one layer."""
    h, kv = shape.hidden, shape.hidden // shape.heads * shape.key_heads
    return [(h, h), (h, kv), (h, kv), (h, h), (h, shape.inner), (h, shape.inner), (shape.inner, h)]


def floor_operations(shape: Shape, lengths: list[list[int]], with_reference: bool) -> float:
    """Operations that training on these rows cannot do without.

    6 N T over the unique tokens of the layers (2 forward, 4 backward), 6 V H for each response token at the head, and
    14 H for each pair of tokens that see each other in each layer (4 forward, 10 backward, whose scores every
    memory-saving kernel computes again); a reference pass adds the forward parts once more.

    lengths: for each row the tokens of its prompt and of each response.
    """
    weights = shape.layers * sum(a * b for a, b in linears(shape))
    tokens = sum(sum(row) for row in lengths)  # a response's EOS is on no axis, its last token is: they cancel
    predicted = sum(n + 1 for row in lengths for n in row[1:])
    seen = sum(p * p / 2 + sum(p * n + n * n / 2 for n in responses) for p, *responses in lengths)
    forward = 2 * weights * tokens + 2 * shape.hidden * shape.vocabulary * predicted
    attention = shape.layers * shape.hidden * seen
    return (3 * forward + 14 * attention) + (forward + 4 * attention if with_reference else 0)


def matrix_rate(shape: Shape, rows: int, dtype: str, threads: int) -> float:
    """Operations a second over the products of the model's own linear maps, forward and backward, best of five."""
    import torch

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    operations = seconds = 0.0
    for inputs, outputs in [*linears(shape), (shape.hidden, shape.vocabulary)]:
        x = torch.randn(rows, inputs, device=device, dtype=kind)
        w = torch.randn(outputs, inputs, device=device, dtype=kind)
        g = torch.randn(rows, outputs, device=device, dtype=kind)
        for a, b in ((x, w.T), (g, w), (g.T, x)):
            best = float("inf")
            for _ in range(6):
                start = time.perf_counter()
                a @ b
                if device == "cuda":
                    torch.cuda.synchronize()
                best = min(best, time.perf_counter() - start)
            times = 1 if outputs == shape.vocabulary else shape.layers
            operations += times * 2 * rows * inputs * outputs
            seconds += times * best
    return operations / seconds
