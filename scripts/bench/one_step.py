"""Forward and backward of one micro-batch of made-up tokens, in a process of its own: what it costs in memory and time.

    python -m bench.one_step '{"prompt": 512, "response": 128, "k": 2, "vocabulary": 8192, "layout": "shared"}'

Prints one line of JSON: bytes resident at the peak above those before the step, CPU seconds of forward and backward.
"""

from __future__ import annotations

import json
import sys
import time
from typing import NamedTuple

from bench.job import peak_memory


class Spec(NamedTuple):
    """prompt, response: tokens. k: responses of each prompt. examples: prompts. layout: as `Policy`.
    head: "chunked", within prefopt's budget, or "whole", all logits at once. threads: of torch."""

    prompt: int = 512
    response: int = 128
    k: int = 2
    examples: int = 4
    vocabulary: int = 8192
    layout: str = "shared"
    head: str = "chunked"
    threads: int = 1


def measure(spec: Spec) -> dict[str, float]:
    """Peak and seconds of one step of the 28M model with the vocabulary of `spec`."""
    import psutil
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from prefopt.batch import Encoded
    from prefopt.losses import make_loss
    from prefopt.model import logps
    from prefopt.model.forward import respond
    from prefopt.model.policy import Policy
    from prefopt.pack import pack

    torch.set_num_threads(spec.threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=spec.vocabulary,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=16_384,
        tie_word_embeddings=True,
    )
    if spec.head == "whole":
        logps.MAX_LOGITS = 2**40
    policy = Policy(LlamaForCausalLM(config), spec.layout)
    loss = make_loss({"name": "rrhf"} if spec.k > 2 else {"name": "simpo"})

    def tokens(count: int) -> list[int]:
        return torch.randint(0, spec.vocabulary, (count,)).tolist()

    def step(examples: int, prompt: int, response: int) -> None:
        rows = [
            Encoded(
                str(n), n, tokens(prompt), [tokens(response) for _ in range(spec.k)], [(0, 1)], 0,
                scores=[float(spec.k - i) for i in range(spec.k)],
            )
            for n in range(examples)
        ]  # fmt: skip
        batch = pack(rows, policy.shares_prompts)
        loss(respond(policy, batch, loss.needs)).total(batch.counts()).backward()

    step(1, 8, 4)  # what the first step alone costs: gradients, threads, buffers
    before = psutil.Process().memory_info().rss
    _forget_peak()
    start = time.process_time()
    step(spec.examples, spec.prompt, spec.response)
    return {"peak_bytes": max(0, peak_memory() - before), "seconds": time.process_time() - start}


def _forget_peak() -> None:
    """Linux: the peak counts from here on."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


if __name__ == "__main__":
    print(json.dumps(measure(Spec(**json.loads(sys.argv[1])))))
