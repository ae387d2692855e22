"""Adapters of the methods that learn from pairs, first the plain ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from oracle_adapters.common import (
    Adapter,
    Inputs,
    component,
    leaf,
    of_pairs,
    paired,
    pairwise,
    sums_of_pairs,
    tokens,
    tokens_of_pairs,
)
from prefopt.batch import LossOutput, Responses
from prefopt.losses.orpo import ORPO


def _ipo_settings(h: dict) -> list[tuple[float, dict]]:
    normalisation = "mean" if h["length_normalized"] else "sum"
    return [(1.0, {"name": "ipo", "beta": h["beta"], "normalisation": normalisation})]


def _simpo_settings(h: dict) -> list[tuple[float, dict]]:
    form = {"hinge": "hinge", "sigmoid": "logistic"}[h.get("loss_type", "sigmoid")]
    simpo = {"name": "simpo", "beta": h["beta"], "gamma_beta_ratio": h["gamma_beta_ratio"], "form": form}
    simpo["label_smoothing"] = h.get("label_smoothing", 0.0)
    return [(1.0, simpo), (h.get("sft_weight", 0.0), {"name": "sft"})]


def _as_mix(settings: list[tuple[float, dict]]) -> dict:
    """The same sum as one method."""
    return {"name": "mix", "parts": [{"weight": weight, **part} for weight, part in settings]}


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


SLIC_TARGETS = {"chosen": "chosen", "reference": "y_ref"}


def _slic_hf_settings(h: dict) -> list[tuple[float, dict]]:
    target = SLIC_TARGETS[h["reg_target"]]
    return [(1.0, {"name": "slic_hf", "delta": h["delta"], "lam": h["lambda"], "target": target})]


def _sums_of_pairs_and_targets(inputs: dict) -> Inputs:
    """Sums of pairs; where the case has sums of responses to imitate, these are one more row for each pair."""
    leaves, responses = sums_of_pairs(inputs)
    if "sft_target_logps" not in inputs:
        return Inputs(leaves, responses)
    sums = leaf(inputs["sft_target_logps"])
    num_rows, num_targets = len(responses.lengths), len(sums)
    rows = torch.arange(num_targets) + num_rows
    with_targets = replace(
        responses,
        token_logps=torch.cat((responses.token_logps, sums)),
        row=torch.cat((responses.row, rows)),
        logps=torch.cat((responses.logps, sums)),
        lengths=torch.cat((responses.lengths, torch.ones_like(rows))),
        example=torch.cat((responses.example, torch.arange(num_targets))),
        targets=rows,
    )
    return Inputs({**leaves, "sft_target_logps": [sums]}, with_targets)


def _calibration(output: LossOutput, responses: Responses) -> dict[str, Any]:
    return of_pairs(output, responses) | {"calibration_losses": component(output, "calibration")}


SFT_REDUCTIONS = {
    "token_mean": "token_mean",
    "sequence_sum_batch_mean": "sequence_sum",
    "sequence_mean_batch_mean": "sequence_mean",
}

ADAPTERS: dict[str, Adapter] = {name: pairwise(name, keys) for name, keys in PAIRWISE.items()} | {
    "ipo": Adapter(sums_of_pairs, _ipo_settings, of_pairs),
    "cpo_simpo": Adapter(sums_of_pairs, _ratio_settings("cpo_simpo", "cpo_alpha", "nll_weight"), of_pairs),
    "alphapo": Adapter(sums_of_pairs, _ratio_settings("alphapo", "alpha", "alpha"), of_pairs),
    "slic_hf": Adapter(_sums_of_pairs_and_targets, _slic_hf_settings, _calibration),
    "sft": Adapter(
        tokens,
        lambda h: [(1.0, {"name": "sft", "reduction": SFT_REDUCTIONS[h["reduction"]]})],
        lambda o, r: {"per_sequence_sum": -r.logps, "num_tokens": r.token_logps.shape[0]},
    ),
    "dpo": Adapter(sums_of_pairs, lambda h: [(1.0, {"name": "dpo", "beta": h["beta"]})], paired("dpo")),
    "simpo": Adapter(sums_of_pairs, _simpo_settings, paired("simpo")),
    "orpo": Adapter(
        tokens_of_pairs,
        _orpo_settings,
        paired(
            "odds_ratio",
            ("log_odds", lambda o, r: ORPO.log_odds_ratio(r)),
            ("odds_ratio_losses", lambda o, r: component(o, "odds_ratio")),
            ("nll_loss", lambda o, r: component(o, "nll").mean()),
            ("chosen_avg_logps", lambda o, r: r.paired(r.mean_logps)[0]),
            ("rejected_avg_logps", lambda o, r: r.paired(r.mean_logps)[1]),
        ),
    ),
}


END_TO_END: dict[str, Any] = {
    "dpo": lambda h: [(1.0, {"name": "dpo", "beta": h["beta"]})],
    **{
        name: ADAPTERS[name].settings
        for name in ("ipo", "dpo_hinge", "dpo_length_normalized", "apo_zero", "nca_pair", "cpo", "cpo_simpo", "slic_hf")
    },
    "sft": lambda h: [(1.0, {"name": "sft"})],
    "sft_on_chosen": lambda h: [(1.0, {"name": "sft"})],
    "orpo": _orpo_settings,
    "simpo": _simpo_settings,
    "simpo_with_sft": lambda h: [(1.0, _as_mix(_simpo_settings(h)))],
}
