"""Adapters of the methods that compare pairs with a reference in less plain ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from oracle_adapters.common import (
    Adapter,
    Inputs,
    leaf,
    make_responses,
    of_pairs,
    pairwise,
    preference,
    sums_of_pairs,
)
from prefopt.batch import LossOutput, Responses, WholeStep
from prefopt.losses.wpo import WPO

Settings = list[tuple[float, dict]]

# --- cases whose inputs are not sums alone ---


def _columns(inputs: dict, chosen: str, rejected: str) -> Tensor:
    """[2P, ...] a column of constants: of all chosen responses, then of all rejected ones."""
    return torch.tensor(inputs[chosen] + inputs[rejected], dtype=torch.float64)


def _sums_with(column: str, chosen: str, rejected: str) -> Callable[[dict], Inputs]:
    """Sums of pairs with one more column, where the case has it."""

    def read(inputs: dict) -> Inputs:
        leaves, responses = sums_of_pairs(inputs)
        if chosen in inputs:
            responses = replace(responses, **{column: _columns(inputs, chosen, rejected)})
        return Inputs(leaves, responses)

    return read


def _sums_and_shift(inputs: dict) -> Inputs:
    """Sums of pairs of a step whose mean reward is the case's delta (BCO)."""
    leaves, responses = sums_of_pairs(inputs)
    delta = torch.tensor([[inputs["delta"]]], dtype=torch.float64)
    return Inputs(leaves, replace(responses, whole_step=WholeStep(delta, slice(0, 1))))


def _tokens_against_reference(inputs: dict) -> Inputs:
    """Cases that give one number per token of policy and reference (LD-DPO)."""
    leaves = {name: [leaf(v) for v in inputs[name]] for name in ("chosen_token_logps", "rejected_token_logps")}
    reference = inputs["reference_chosen_token_logps"] + inputs["reference_rejected_token_logps"]
    columns = {
        "reference_logps": torch.tensor([sum(r) for r in reference], dtype=torch.float64),
        "reference_token_logps": torch.tensor([t for r in reference for t in r], dtype=torch.float64),
    }
    tokens = leaves["chosen_token_logps"] + leaves["rejected_token_logps"]
    return Inputs(leaves, make_responses(tokens, len(leaves["chosen_token_logps"]), **columns))


def _tokens_and_collision(inputs: dict) -> Inputs:
    """Cases that give tokens for the weight and ask for the gradient of the sums (WPO)."""
    names = {"policy_chosen_logps": "chosen_token_logps", "policy_rejected_logps": "rejected_token_logps"}
    leaves = {name: [leaf(sum(t)) for t in inputs[tokens]] for name, tokens in names.items()}
    tokens = [torch.tensor(t, dtype=torch.float64) for key in names.values() for t in inputs[key]]
    collision = inputs["chosen_token_log_sum_sq_probs"] + inputs["rejected_token_log_sum_sq_probs"]
    responses = make_responses(
        tokens,
        len(inputs["chosen_token_logps"]),
        reference_logps=_columns(inputs, "reference_chosen_logps", "reference_rejected_logps"),
        collision=torch.tensor([t for row in collision for t in row], dtype=torch.float64),
    )
    sums = torch.stack([each for name in names for each in leaves[name]])
    return Inputs(leaves, replace(responses, logps=sums))


def _divergences(inputs: dict) -> Inputs:
    """Cases of TDPO: log-ratios and divergences of whole responses, or logits of both models."""
    if "policy_logits" in inputs:
        return Inputs({}, _from_logits(inputs))
    names = ("chosen_logratio", "rejected_logratio", "chosen_position_kl", "rejected_position_kl")
    leaves = {name: [leaf(v) for v in inputs[name]] for name in names}
    logratios = [v.reshape(1) for name in names[:2] for v in leaves[name]]
    divergences = torch.stack([v for name in names[2:] for v in leaves[name]])
    zeros = torch.zeros(len(logratios), dtype=torch.float64)
    num_pairs = len(inputs["chosen_logratio"])
    return Inputs(leaves, make_responses(logratios, num_pairs, reference_logps=zeros, forward_kl=divergences))


def _from_logits(inputs: dict) -> Responses:
    """Responses of one row of logits each; a label below 0 is not predicted."""
    policy, reference, divergence = [], [], []
    rows = zip(inputs["policy_logits"], inputs["reference_logits"], inputs["labels"], strict=True)
    for policy_logits, reference_logits, labels in rows:
        p, r = (torch.tensor(x, dtype=torch.float64).log_softmax(-1) for x in (policy_logits, reference_logits))
        places = [t for t in range(len(labels) - 1) if labels[t + 1] >= 0]
        targets = [labels[t + 1] for t in places]
        policy.append(p[places, targets])
        reference.append(r[places, targets])
        divergence.append((r.exp() * (r - p)).sum(-1)[places])
    sums = torch.stack([t.sum() for t in reference])
    return make_responses(policy, len(policy) // 2, reference_logps=sums, forward_kl=torch.cat(divergence))


# --- what a case's settings mean ---


def _ld_dpo_settings(h: dict) -> Settings:
    if h["ld_alpha"] == 1:
        return [(1.0, {"name": "dpo", "beta": h["beta"]})]
    return [(1.0, {"name": "ld_dpo", "beta": h["beta"], "ld_alpha": h["ld_alpha"]})]


def _f_dpo_settings(h: dict) -> Settings:
    if h["divergence"] == "reverse_kl":
        return [(1.0, {"name": "dpo", "beta": h["beta"]})]
    alpha = {"alpha": h["alpha"]} if h["divergence"] == "alpha" else {}
    return [(1.0, {"name": "f_dpo", "beta": h["beta"], "divergence": h["divergence"], **alpha})]


def _wpo_settings(h: dict) -> Settings:
    clamp = {1.0: "at_one", None: "none"}[h["weight_clamp_max"]]
    return [(1.0, {"name": "wpo", "beta": h["beta"], "clamp": clamp, "label_smoothing": h["label_smoothing"]})]


def _wpo_weights(h: dict, responses: Responses) -> dict[str, Any]:
    ((_, settings),) = _wpo_settings(h)
    return {"weights": WPO(clamp=settings["clamp"]).weights(responses)}


def _tdpo_settings(h: dict) -> Settings:
    alpha = {"alpha": h["alpha"]} if h["variant"] == "tdpo2" else {}
    return [(1.0, {"name": "tdpo", "beta": h["beta"], "variant": h["variant"], **alpha})]


def _modpo_settings(h: dict) -> Settings:
    return [(1.0, {"name": "modpo", "beta": h["beta"], "weights": h["w"], "form": h.get("loss_kind", "logistic")})]


def _named(name: str, *keys: str, **renamed: str) -> Callable[[dict], Settings]:
    """A method whose settings are called as in the file, or `renamed`: prefopt's name by the file's."""
    names = {key: key for key in keys} | renamed
    return lambda h: [(1.0, {"name": name, **{ours: h[theirs] for theirs, ours in names.items() if theirs in h}})]


# --- where a case's numbers are found ---


def _of_whole_responses(output: LossOutput, responses: Responses) -> dict[str, Any]:
    """Losses and rewards by response, and the sums that cases of logits list too (TDPO)."""
    assert responses.forward_kl is not None
    sums = {"logratio": responses.logratios, "position_kl": responses.summed(responses.forward_kl)}
    return of_pairs(output, responses) | sums | {"policy_logps": responses.logps}


def _in_rank_order(output: LossOutput, responses: Responses) -> dict[str, Any]:
    """Losses by rank of what they compare, as the file lists them (AOT)."""
    assert responses.whole_step is not None
    order = responses.whole_step.values[:, 0].argsort(stable=True)
    return of_pairs(output, responses) | {"losses": preference(output)[order]}


ADAPTERS: dict[str, Adapter] = {
    "rso": pairwise("rso", {"gamma": "gamma", "loss_kind": "form"}),
    "ld_dpo": Adapter(_tokens_against_reference, _ld_dpo_settings, of_pairs),
    "f_dpo": Adapter(sums_of_pairs, _f_dpo_settings, of_pairs),
    "wpo": Adapter(_tokens_and_collision, _wpo_settings, of_pairs, more=_wpo_weights),
    "aot": Adapter(sums_of_pairs, _named("aot", "beta", "label_smoothing", "variant"), _in_rank_order),
    "sppo": Adapter(
        _sums_with("scores", "chosen_win_probs", "rejected_win_probs"), _named("sppo", "beta", "variant"), of_pairs
    ),
    "bco_pair": Adapter(_sums_and_shift, _named("bco_pair", "beta"), of_pairs),
    "discopop": pairwise("discopop", {"beta": "beta", "tau": "tau"}),
    "tdpo": Adapter(_divergences, _tdpo_settings, _of_whole_responses),
    "modpo": Adapter(
        _sums_with("margins", "chosen_margin_rewards", "rejected_margin_rewards"), _modpo_settings, of_pairs
    ),
}
END_TO_END: dict[str, Any] = {"modpo": _modpo_settings}
