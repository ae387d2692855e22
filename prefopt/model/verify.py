"""python -m prefopt.model.verify FOLDER PROBE: does a saved model, loaded as a user would, give the probed numbers?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from prefopt.model.attention import default_attention


def largest_difference(model: PreTrainedModel, probe: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference between the model's own log-probabilities and the probe's, one sequence at a time."""
    found = []
    start = 0
    for prompt, response in zip(probe["prompt_lengths"].tolist(), probe["response_lengths"].tolist(), strict=True):
        ids = probe["ids"][start : start + prompt + response]
        start += prompt + response
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, prompt - 1 : -1].float()
        found.append(logits.log_softmax(-1).gather(1, ids[prompt:, None]).squeeze(1))
    return (torch.cat(found).double() - probe["logps"]).abs().max().item()


def main(folder: str, probe_file: str) -> int:
    """Prints {"largest_difference": nats} and returns 1 where it exceeds the probe's tolerance or is not a number."""
    probe = load_file(probe_file)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    model.set_attn_implementation(default_attention(model))
    difference = largest_difference(model, probe)
    tolerance = probe["tolerance"].item()
    print(json.dumps({"largest_difference": difference}))
    if not difference <= tolerance:
        print(f"log-probabilities differ by {difference:.3g} nats, allowed are {tolerance:.3g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1])), sys.argv[2]))
