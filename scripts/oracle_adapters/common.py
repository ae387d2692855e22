"""What the adapters share: inputs of a case as `Responses`, and where a case's numbers are found in a `LossOutput`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prefopt.batch import LossOutput, Responses, Unit

# --- from a case's inputs to Responses: leaves that the gradient is asked of, and the responses made of them ---


class Inputs(NamedTuple):
    leaves: dict[str, list[Tensor]]
    responses: Responses


def leaf(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def make_responses(token_logps: list[Tensor], num_pairs: int, **columns: Any) -> Responses:
    """Responses laid out as all chosen, then all rejected; the sums follow from the tokens."""
    lengths = torch.tensor([len(t) for t in token_logps])
    num_examples = num_pairs or len(token_logps)
    pairs = torch.stack((torch.arange(num_pairs), torch.arange(num_pairs) + num_pairs), 1)
    return Responses(
        token_logps=torch.cat(token_logps),
        row=torch.repeat_interleave(torch.arange(len(lengths)), lengths),
        logps=torch.stack([t.sum() for t in token_logps]),
        lengths=lengths,
        example=torch.arange(len(lengths)) % num_examples,
        pairs=pairs,
        best=torch.arange(num_examples),
        **columns,
    )


def sums_of_pairs(inputs: dict) -> Inputs:
    """Cases that give sums and token counts: each sum is spread evenly over its tokens."""
    leaves = {name: leaf(inputs[name]) for name in ("policy_chosen_logps", "policy_rejected_logps")}
    sums = torch.cat(list(leaves.values()))
    counts = inputs["chosen_token_counts"] + inputs["rejected_token_counts"]
    tokens = [(s / n).expand(n) for s, n in zip(sums, counts, strict=True)]
    columns = {}
    if "reference_chosen_logps" in inputs:
        reference = inputs["reference_chosen_logps"] + inputs["reference_rejected_logps"]
        columns["reference_logps"] = torch.tensor(reference, dtype=torch.float64)
    responses = make_responses(tokens, len(inputs["chosen_token_counts"]), **columns)
    # The sums themselves, not the sums of their parts, which differ in the last digit.
    return Inputs({k: [v] for k, v in leaves.items()}, replace(responses, logps=sums))


def tokens_of_pairs(inputs: dict) -> Inputs:
    """Cases that give one number per token (ORPO): chosen, rejected, and the chosen ones' prompts."""
    chosen = [leaf(v) for v in inputs["chosen_token_logps"]]
    rejected = [leaf(v) for v in inputs["rejected_token_logps"]]
    prompts = [leaf(v) for v in inputs["chosen_prompt_token_logps"]]
    responses = make_responses(chosen + rejected, len(chosen), prompt_logps=torch.cat(prompts))
    leaves = {"chosen_token_logps": chosen, "rejected_token_logps": rejected, "chosen_prompt_token_logps": prompts}
    return Inputs(leaves, responses)


def tokens(inputs: dict) -> Inputs:
    """Cases of single responses (SFT), by token log-probabilities or by logits."""
    if "logits" in inputs:
        leaves: dict[str, list[Tensor]] = {}
        values = [
            torch.stack([row.log_softmax(-1)[label] for row, label in zip(leaf(logits), labels[1:]) if label != -100])
            for logits, labels in zip(inputs["logits"], inputs["labels"], strict=True)
            if any(label != -100 for label in labels[1:])
        ]
    else:
        values = [leaf(v) for v in inputs["token_logps"]]
        leaves = {"token_logps": values}
    return Inputs(leaves, make_responses(values, 0))


# --- one adapter per oracle file: which loss a case's settings mean, and where its parts are found ---


class Adapter(NamedTuple):
    read: Callable[[dict], Inputs]
    settings: Callable[[dict], list[tuple[float, dict]]]  # (weight, loss settings): a mixture is a sum
    parts: Callable[[LossOutput, Responses], dict[str, Any]]
    more: Callable[[dict, Responses], dict[str, Any]] = lambda h, r: {}  # parts that depend on the settings


def component(output: LossOutput, name: str) -> Tensor:
    (values,) = [c.values for c in output.components if c.name == name]
    return values


def preference(output: LossOutput) -> Tensor:
    """[P] all terms that are counted in pairs."""
    return sum(c.weight * c.values for c in output.components if c.unit is Unit.PAIR)


def of_pairs(output: LossOutput, responses: Responses) -> dict[str, Any]:
    chosen, rejected = responses.paired(output.rewards)
    return {"losses": preference(output), "chosen_rewards": chosen, "rejected_rewards": rejected}


def pairwise(name: str, keys: dict[str, str]) -> Adapter:
    """A method whose cases give sums: `keys` are prefopt's setting names by the file's."""
    return Adapter(
        sums_of_pairs, lambda h: [(1.0, {"name": name, **{keys[k]: v for k, v in h.items() if k in keys}})], of_pairs
    )


def paired(name: str, *more: tuple[str, Callable[[LossOutput, Responses], Any]]) -> Callable:
    def parts(output: LossOutput, responses: Responses) -> dict[str, Any]:
        chosen, rejected = responses.paired(output.rewards)
        found = {"losses": component(output, name), "chosen_rewards": chosen, "rejected_rewards": rejected}
        return found | {key: make(output, responses) for key, make in more}

    return parts
