"""python -m prefopt.model.verify FOLDER PROBE BASE DTYPE

Does a saved model, loaded as a user would, give the probed numbers? BASE and DTYPE: how the weights under adapters were
held (`model.lora.base`, `model.dtype`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from prefopt.model.attention import default_attention
from prefopt.model.files import adapter_folder
from prefopt.model.quantised import quantisation


def largest_difference(model: PreTrainedModel, probe: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference between what the model itself says and the probe, one sequence at a time."""
    found = []
    start = 0
    for prompt, response in zip(probe["prompt_lengths"].tolist(), probe["response_lengths"].tolist(), strict=True):
        ids = probe["ids"][start : start + prompt + response]
        start += prompt + response
        with torch.no_grad():
            logits = model(input_ids=ids[None].to(model.device)).logits[0].float().cpu()
        if "rewards" in probe:
            found.append(logits)
        else:
            found.append(logits[prompt - 1 : -1].log_softmax(-1).gather(1, ids[prompt:, None]).squeeze(1))
    expected = probe["rewards" if "rewards" in probe else "logps"]
    return (torch.cat(found).double() - expected).abs().max().item()


def load_as_users_do(folder: str, scalar_head: bool, base: str, dtype: str) -> PreTrainedModel:
    """The model in a folder, or the one that the adapters in it belong to with them in place.

    base, dtype: `model.lora.base` and `model.dtype`. In 4 or 8 bits a model is another one than with plain weights.
    """
    if base != "plain":
        exact = getattr(torch, dtype)
        held: Any = {"dtype": exact, "quantization_config": quantisation(base, exact)}
    else:
        held = {"dtype": "auto"}
    if not scalar_head:
        return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, **held)
    if adapter_folder(folder) is not None:
        from peft import AutoPeftModelForSequenceClassification  # puts the trained head back too

        loaded: Any = AutoPeftModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, trust_remote_code=False, **held
        )
        return loaded.get_base_model()
    return AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False, **held)


def main(folder: str, probe_file: str, base: str = "plain", dtype: str = "float32") -> int:
    """Prints {"largest_difference": number} and returns 1 where it exceeds the probe's tolerance or is not a number."""
    probe = load_file(probe_file)
    model = load_as_users_do(folder, "rewards" in probe, base, dtype).eval()
    model.set_attn_implementation(default_attention(model))
    difference = largest_difference(model, probe)
    tolerance = probe["tolerance"].item()
    print(json.dumps({"largest_difference": difference}))
    if not difference <= tolerance:
        what = "rewards" if "rewards" in probe else "log-probabilities"
        print(f"{what} differ by {difference:.3g}, allowed are {tolerance:.3g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1])), *sys.argv[2:]))
