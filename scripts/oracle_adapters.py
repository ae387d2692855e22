"""Adapters between recorded oracles and prefopt: what a file's inputs, settings and results are called here.

`check_oracles.py` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prefopt.batch import LossOutput, Responses, Unit
from prefopt.losses.orpo import ORPO

# --- from a case's inputs to Responses: leaves that the gradient is asked of, and the responses made of them ---


class Inputs(NamedTuple):
    leaves: dict[str, list[Tensor]]
    responses: Responses


def _leaf(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def _responses(token_logps: list[Tensor], num_pairs: int, **columns: Any) -> Responses:
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
    leaves = {name: _leaf(inputs[name]) for name in ("policy_chosen_logps", "policy_rejected_logps")}
    sums = torch.cat(list(leaves.values()))
    counts = inputs["chosen_token_counts"] + inputs["rejected_token_counts"]
    tokens = [(s / n).expand(n) for s, n in zip(sums, counts, strict=True)]
    columns = {}
    if "reference_chosen_logps" in inputs:
        reference = inputs["reference_chosen_logps"] + inputs["reference_rejected_logps"]
        columns["reference_logps"] = torch.tensor(reference, dtype=torch.float64)
    responses = _responses(tokens, len(inputs["chosen_token_counts"]), **columns)
    # The sums themselves, not the sums of their parts, which differ in the last digit.
    return Inputs({k: [v] for k, v in leaves.items()}, replace(responses, logps=sums))


def tokens_of_pairs(inputs: dict) -> Inputs:
    """Cases that give one number per token (ORPO): chosen, rejected, and the chosen ones' prompts."""
    chosen = [_leaf(v) for v in inputs["chosen_token_logps"]]
    rejected = [_leaf(v) for v in inputs["rejected_token_logps"]]
    prompts = [_leaf(v) for v in inputs["chosen_prompt_token_logps"]]
    responses = _responses(chosen + rejected, len(chosen), prompt_logps=torch.cat(prompts))
    leaves = {"chosen_token_logps": chosen, "rejected_token_logps": rejected, "chosen_prompt_token_logps": prompts}
    return Inputs(leaves, responses)


def tokens(inputs: dict) -> Inputs:
    """Cases of single responses (SFT), by token log-probabilities or by logits."""
    if "logits" in inputs:
        leaves: dict[str, list[Tensor]] = {}
        values = [
            torch.stack([row.log_softmax(-1)[label] for row, label in zip(_leaf(logits), labels[1:]) if label != -100])
            for logits, labels in zip(inputs["logits"], inputs["labels"], strict=True)
            if any(label != -100 for label in labels[1:])
        ]
    else:
        values = [_leaf(v) for v in inputs["token_logps"]]
        leaves = {"token_logps": values}
    return Inputs(leaves, _responses(values, 0))


# --- one adapter per oracle file: which loss a case's settings mean, and where its parts are found ---


class Adapter(NamedTuple):
    read: Callable[[dict], Inputs]
    settings: Callable[[dict], list[tuple[float, dict]]]  # (weight, loss settings): a mixture is a sum
    parts: Callable[[LossOutput, Responses], dict[str, Any]]
    covers: Callable[[dict], bool] = lambda h: True  # False: prefopt lacks this reading; the table counts such cases


def _component(output: LossOutput, name: str) -> Tensor:
    (values,) = [c.values for c in output.components if c.name == name]
    return values


def _preference(output: LossOutput) -> Tensor:
    """[P] all terms that are counted in pairs."""
    return sum(c.weight * c.values for c in output.components if c.unit is Unit.PAIR)


def _of_pairs(output: LossOutput, responses: Responses) -> dict[str, Any]:
    chosen, rejected = responses.paired(output.rewards)
    return {"losses": _preference(output), "chosen_rewards": chosen, "rejected_rewards": rejected}


def _pairwise(name: str, keys: dict[str, str]) -> Adapter:
    """A method whose cases give sums: `keys` are prefopt's setting names by the file's."""
    return Adapter(
        sums_of_pairs, lambda h: [(1.0, {"name": name, **{keys[k]: v for k, v in h.items() if k in keys}})], _of_pairs
    )


def _ipo_settings(h: dict) -> list[tuple[float, dict]]:
    normalisation = "mean" if h["length_normalized"] else "sum"
    return [(1.0, {"name": "ipo", "beta": h["beta"], "normalisation": normalisation})]


def _paired(name: str, *more: tuple[str, Callable[[LossOutput, Responses], Any]]) -> Callable:
    def parts(output: LossOutput, responses: Responses) -> dict[str, Any]:
        chosen, rejected = responses.paired(output.rewards)
        found = {"losses": _component(output, name), "chosen_rewards": chosen, "rejected_rewards": rejected}
        return found | {key: make(output, responses) for key, make in more}

    return parts


def _simpo_settings(h: dict) -> list[tuple[float, dict]]:
    form = {"hinge": "hinge", "sigmoid": "logistic"}[h.get("loss_type", "sigmoid")]
    simpo = {"name": "simpo", "beta": h["beta"], "gamma_beta_ratio": h["gamma_beta_ratio"], "form": form}
    simpo["label_smoothing"] = h.get("label_smoothing", 0.0)
    return [(1.0, simpo), (h.get("sft_weight", 0.0), {"name": "sft"})]


def _orpo_settings(h: dict) -> list[tuple[float, dict]]:
    scope = "sequence" if h["nll_on_prompt"] else "response"
    return [(1.0, {"name": "orpo", "lam": h["lambda"], "nll_over": scope})]


BETA = {"beta": "beta"}
SMOOTHED = {"beta": "beta", "label_smoothing": "label_smoothing"}
PAIRWISE = {
    "cdpo": SMOOTHED,
    "robust_dpo": SMOOTHED,
    "dpo_hinge": BETA,
    "dpo_length_normalized": BETA,
    "r_dpo": {"beta": "beta", "alpha": "alpha"},
    "apo_zero": BETA,
    "apo_down": BETA,
    "cpo": {"beta": "beta", "cpo_alpha": "nll_weight", "label_smoothing": "label_smoothing"},
    "exo_pair": SMOOTHED,
    "nca_pair": BETA,
}
"""Methods whose settings only have other names, or the same."""


def _ratio_settings(name: str, key: str, setting: str) -> Callable[[dict], list[tuple[float, dict]]]:
    """Settings of a SimPO relative whose file has gamma itself, and one more setting."""
    return lambda h: [
        (1.0, {"name": name, "beta": h["beta"], "gamma_beta_ratio": h["gamma"] / h["beta"], setting: h[key]})
    ]


def _calibration(output: LossOutput, responses: Responses) -> dict[str, Any]:
    return _of_pairs(output, responses) | {"calibration_losses": _component(output, "calibration")}


SFT_REDUCTIONS = {
    "token_mean": "token_mean",
    "sequence_sum_batch_mean": "sequence_sum",
    "sequence_mean_batch_mean": "sequence_mean",
}

ADAPTERS = {name: _pairwise(name, keys) for name, keys in PAIRWISE.items()} | {
    "ipo": Adapter(sums_of_pairs, _ipo_settings, _of_pairs),
    "cpo_simpo": Adapter(sums_of_pairs, _ratio_settings("cpo_simpo", "cpo_alpha", "nll_weight"), _of_pairs),
    "alphapo": Adapter(sums_of_pairs, _ratio_settings("alphapo", "alpha", "alpha"), _of_pairs),
    "slic_hf": Adapter(
        sums_of_pairs,
        lambda h: [(1.0, {"name": "slic_hf", "delta": h["delta"], "lam": h["lambda"]})],
        _calibration,
        covers=lambda h: h["reg_target"] == "chosen",
    ),
    "sft": Adapter(
        tokens,
        lambda h: [(1.0, {"name": "sft", "reduction": SFT_REDUCTIONS[h["reduction"]]})],
        lambda o, r: {"per_sequence_sum": -r.logps, "num_tokens": r.token_logps.shape[0]},
    ),
    "dpo": Adapter(sums_of_pairs, lambda h: [(1.0, {"name": "dpo", "beta": h["beta"]})], _paired("dpo")),
    "simpo": Adapter(sums_of_pairs, _simpo_settings, _paired("simpo")),
    "orpo": Adapter(
        tokens_of_pairs,
        _orpo_settings,
        _paired(
            "odds_ratio",
            ("log_odds", lambda o, r: ORPO.log_odds_ratio(r)),
            ("odds_ratio_losses", lambda o, r: _component(o, "odds_ratio")),
            ("nll_loss", lambda o, r: _component(o, "nll").mean()),
            ("chosen_avg_logps", lambda o, r: r.paired(r.mean_logps)[0]),
            ("rejected_avg_logps", lambda o, r: r.paired(r.mean_logps)[1]),
        ),
    ),
}


END_TO_END = {
    "dpo": lambda h: [(1.0, {"name": "dpo", "beta": h["beta"]})],
    **{
        name: ADAPTERS[name].settings
        for name in ("ipo", "dpo_hinge", "dpo_length_normalized", "apo_zero", "nca_pair", "cpo", "cpo_simpo", "slic_hf")
    },
    "sft": lambda h: [(1.0, {"name": "sft"})],
    "sft_on_chosen": lambda h: [(1.0, {"name": "sft"})],
    "orpo": _orpo_settings,
    "simpo": _simpo_settings,
    "simpo_with_sft": _simpo_settings,
}
