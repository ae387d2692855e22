"""Adapters of the methods that learn from labels, rankings, scalar heads and verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from oracle_adapters.common import Adapter, Inputs, component, leaf, make_responses
from prefopt.batch import LossOutput, Responses

# --- single responses with labels: kto, apo_zero_unpaired, ulma ---


def _labelled(inputs: dict) -> Inputs:
    """Sums of single responses. Of KTO's mismatched completions and the other ranks' means, their mean."""
    sums = leaf(inputs["policy_logps"])
    columns = {"reference_logps": torch.tensor(inputs["reference_logps"], dtype=torch.float64)}
    if "policy_kl_logps" in inputs:
        own = _mean(inputs["policy_kl_logps"]) - _mean(inputs["reference_kl_logps"])
        columns["kl"] = torch.tensor(_mean([own, *inputs.get("other_ranks_kl_means", [])]), dtype=torch.float64)
    labels = inputs["labels"] if "labels" in inputs else [score == 1 for score in inputs["scores"]]
    columns["labels"] = torch.tensor(labels)
    if "scores" in inputs:
        columns["scores"] = torch.tensor(inputs["scores"], dtype=torch.float64)
    counts = inputs.get("token_counts", [1] * len(labels))
    tokens = [(s / n).expand(n) for s, n in zip(sums, counts, strict=True)]
    # The sums themselves, not the sums of their parts, which differ in the last digit.
    return Inputs({"policy_logps": [sums]}, replace(make_responses(tokens, 0, **columns), logps=sums))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _weighted(name: str) -> Callable[[dict], list[tuple[float, dict]]]:
    keys = ("beta", "desirable_weight", "undesirable_weight")
    return lambda h: [(1.0, {"name": name, **{key: h[key] for key in keys}})]


def _of_labels(name: str) -> Callable[[LossOutput, Responses], dict[str, Any]]:
    def parts(output: LossOutput, responses: Responses) -> dict[str, Any]:
        found = {"losses": component(output, name), "rewards": output.rewards}
        return found | ({} if responses.kl is None else {"kl": responses.kl.clamp(min=0)})

    return parts


def _ulma_settings(h: dict) -> list[tuple[float, dict]]:
    positive = {"shifted_ce_loss": "token_mean"}.get(h["sft_loss_type"], h["sft_loss_type"])
    settings = {"positive": positive, "negative": h["preference_loss_type"], "beta": h["beta"], "z": h["constant_zx"]}
    return [(1.0, {"name": "ulma", **settings})]


def _ulma_parts(output: LossOutput, responses: Responses) -> dict[str, Any]:
    positive, negative = (c.weight * (c.values.mean() if len(c.values) else 0.0) for c in output.components)
    return {"rewards": output.rewards, "sft_loss": positive, "preference_loss": negative}


# --- rankings: rrhf, slic ---


def _list_of(tokens: list[Tensor], scores: list[float], **columns: Any) -> Responses:
    """All responses to one prompt, the first of the highest score as its best."""
    responses = make_responses(tokens, 0, **columns)
    return replace(
        responses,
        example=torch.zeros(len(tokens), dtype=torch.int64),
        best=torch.tensor([max(range(len(scores)), key=scores.__getitem__)]),
        scores=torch.tensor(scores, dtype=torch.float64),
    )


def _candidates(inputs: dict) -> Inputs:
    """RRHF: the prompt is what the padded length leaves of the longest response."""
    tokens = [leaf(values) for values in inputs["candidate_token_logps"]]
    prompt_length = inputs["padded_length"] - max(len(values) for values in tokens)
    responses = _list_of(tokens, inputs["rewards"], prompt_lengths=torch.tensor([prompt_length]))
    return Inputs({"candidate_token_logps": tokens}, responses)


def _rrhf_settings(h: dict) -> list[tuple[float, dict]]:
    settings = {"length_penalty": h["length_penalty"], "rank_weight": h["rrhf_weight"], "sft": h["sft_reduction"]}
    return [(1.0, {"name": "rrhf", **settings, "denominator": h.get("length_mode", "response")})]


def _rrhf_parts(output: LossOutput, responses: Responses) -> dict[str, Any]:
    rank, nll = component(output, "rank"), component(output, "nll")
    return {"scores": output.rewards, "rank_loss": rank, "sft_loss": nll, "best_index": responses.best}


TARGET_SCORE = 9.0
"""Above every candidate's: it would lead the list if it were taken for a candidate."""


def _slic(inputs: dict) -> Inputs:
    """Candidates by their sums, in one token each; where there is a target, it is one more response of the prompt."""
    sums = leaf(inputs["candidate_logps"])
    leaves = {"candidate_logps": [sums]}
    tokens, scores = list(sums.reshape(-1, 1)), list(inputs["similarities"])
    columns: dict[str, Any] = {}
    if "target_token_logps" in inputs:
        leaves["target_token_logps"] = [leaf(inputs["target_token_logps"])]
        tokens += leaves["target_token_logps"]
    elif "policy_target_logits" in inputs:
        leaves["policy_target_logits"] = [leaf(inputs["policy_target_logits"])]
        policy = leaves["policy_target_logits"][0].log_softmax(-1)
        finetuned = torch.tensor(inputs["finetuned_target_logits"], dtype=torch.float64).log_softmax(-1)
        of_candidates = torch.zeros(len(sums), dtype=torch.float64)
        columns["reverse_kl"] = torch.cat((of_candidates, (policy.exp() * (policy - finetuned)).sum(-1)))
        columns["forward_kl"] = torch.cat((of_candidates, (finetuned.exp() * (finetuned - policy)).sum(-1)))
        tokens.append(torch.zeros(len(policy), dtype=torch.float64))
    if len(tokens) > len(scores):
        columns["targets"] = torch.tensor([len(scores)])
        scores.append(TARGET_SCORE)
    responses = replace(_list_of(tokens, scores, **columns), pairs=torch.tensor(inputs.get("pairs", [])).reshape(-1, 2))
    return Inputs(leaves, responses)


def _slic_settings(h: dict) -> list[tuple[float, dict]]:
    settings = {"name": "slic", "calibration": h["calibration"], "regulariser": "none"}
    if h["calibration"] != "reward":
        settings["beta"] = h["beta"]
    if h["regularizer"]:
        name = f"kl_{h['kl_direction']}" if h["regularizer"] == "kl" else h["regularizer"]
        settings |= {"regulariser": name, "lam": h["lambda"], "target": "y_ref"}
    return [(1.0, settings)]


def _slic_parts(output: LossOutput, responses: Responses) -> dict[str, Any]:
    regulariser = [c.values.mean() for c in output.components if c.name == "regulariser"]
    return {"calibration_loss": component(output, "calibration").mean(), "regularizer_loss": sum(regulariser)}


# --- rankers: reward_bt, rank_pointwise ---


def _rewards_of_pairs(inputs: dict) -> Inputs:
    """A case without margins has margins of 0, as its settings do not say whether it has any."""
    leaves = {name: [leaf(inputs[name])] for name in ("chosen_scores", "rejected_scores")}
    rewards = torch.cat([values for (values,) in leaves.values()])
    num_pairs = len(rewards) // 2
    margins = torch.zeros(len(rewards), 1, dtype=torch.float64)
    margins[:num_pairs, 0] = torch.tensor(inputs.get("margins", [0.0] * num_pairs), dtype=torch.float64)
    no_tokens = [torch.zeros(1, dtype=torch.float64)] * len(rewards)
    return Inputs(leaves, make_responses(no_tokens, num_pairs, rewards=rewards, margins=margins))


def _reward_settings(h: dict) -> list[tuple[float, dict]]:
    return [(1.0, {"name": "reward_bt", "center": h["center_rewards_coefficient"] or 0.0, "margin": "column"})]


def _reward_parts(output: LossOutput, responses: Responses) -> dict[str, Any]:
    chosen, rejected = responses.paired(output.rewards)
    return {
        "losses": component(output, "reward_bt"),
        "mean_margin": (chosen - rejected).mean(),
        "accuracy": (chosen > rejected).double().mean(),
    }


GOOD, BAD = 3, 5
"""Token ids of the verdicts in every case of slic_hf_pointwise."""


def _verdicts(inputs: dict) -> Inputs:
    """The verdict is the response, of one token. margins: log p of Good and of Bad, for the scores."""
    logits, labels = leaf(inputs["logits"]), torch.tensor(inputs["labels"])
    both = logits.log_softmax(-1)[:, [GOOD, BAD]]
    verdict = torch.where(labels, both[:, 0], both[:, 1])
    responses = make_responses(list(verdict.reshape(-1, 1)), 0, labels=labels, margins=both.detach())
    return Inputs({"logits": [logits]}, responses)


def _verdict_settings(h: dict) -> list[tuple[float, dict]]:
    assert (h["good_token_id"], h["bad_token_id"]) == (GOOD, BAD)
    return [(1.0, {"name": "rank_pointwise"})]


def _verdict_parts(output: LossOutput, responses: Responses) -> dict[str, Any]:
    assert responses.margins is not None
    return {
        "losses": component(output, "rank_pointwise"),
        "good_probability": responses.margins[:, 0].exp(),
        "good_probability_renormalized": responses.margins.softmax(-1)[:, 0],
    }


ADAPTERS: dict[str, Adapter] = {
    "kto": Adapter(_labelled, _weighted("kto"), _of_labels("kto")),
    "apo_zero_unpaired": Adapter(_labelled, _weighted("apo_zero_unpaired"), _of_labels("apo_zero_unpaired")),
    "ulma": Adapter(_labelled, _ulma_settings, _ulma_parts),
    "rrhf": Adapter(_candidates, _rrhf_settings, _rrhf_parts),
    "slic": Adapter(_slic, _slic_settings, _slic_parts),
    "reward_bt": Adapter(_rewards_of_pairs, _reward_settings, _reward_parts),
    "slic_hf_pointwise": Adapter(
        _verdicts,
        _verdict_settings,
        _verdict_parts,
    ),
}
END_TO_END: dict[str, Any] = {
    "kto": _weighted("kto"),
    "rrhf": _rrhf_settings,
}
