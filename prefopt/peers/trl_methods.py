"""The methods of TRL's trainers: which of ours each is, and what a switch or a number means in both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefopt.errors import UserError
from prefopt.peers.taking import Kind, Taking
from prefopt.peers.trainer import as_number

DPO: dict[str, tuple[str, dict[str, Any], str]] = {
    "sigmoid": ("dpo", {}, ""),
    "hinge": ("dpo_hinge", {}, ""),
    "ipo": (
        "ipo",
        {"normalisation": "mean"},
        "log-ratios per token, as TRL; trainers that sum them are loss.normalisation=sum",
    ),
    "exo_pair": ("exo_pair", {}, ""),
    "nca_pair": ("nca_pair", {}, ""),
    "robust": ("robust_dpo", {}, ""),
    "bco_pair": (
        "bco_pair",
        {},
        "rewards are measured from the mean of the whole step; TRL's is that of the micro-batch",
    ),
    "sppo_hard": ("sppo", {"variant": "hard"}, "TRL's loss is twice the authors' with certain wins; so is this one"),
    "aot": ("aot", {"variant": "paired"}, "sorted over the whole step; TRL sorts each micro-batch by itself"),
    "aot_unpaired": (
        "aot",
        {"variant": "unpaired"},
        "sorted over the whole step; TRL sorts each micro-batch by itself",
    ),
    "aot_pair": ("aot", {"variant": "unpaired"}, "an older TRL's name for unpaired data; sorted over the whole step"),
    "apo_zero": ("apo_zero", {}, ""),
    "apo_down": ("apo_down", {}, ""),
    "discopop": ("discopop", {}, ""),
    "sigmoid_norm": ("dpo_length_normalized", {}, ""),
    "sft": ("sft", {"reduction": "token_mean"}, ""),
}
"""loss_type of DPOConfig to method, its settings, and what is to be known."""

SMOOTHED = ("robust_dpo", "exo_pair", "aot")
"""Methods of those that have label_smoothing."""


def _beta(t: Taking, to: str = "loss.beta", default: float = 0.1, said: str = "") -> float:
    value = as_number(t.get("beta", default))
    if t.get("beta") is None:
        t.assume("beta", to, value)
    else:
        t.take("beta", to, value, said)
    return value


def _dpo(t: Taking) -> None:
    kinds = t.get("loss_type", "sigmoid")
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    weights = t.get("loss_weights") or [1.0] * len(kinds)
    if (alpha := t.get("rpo_alpha")) is not None:
        kinds, weights = [*kinds, "sft"], [*weights, as_number(alpha)]
        t.note(
            Kind.OTHER, "rpo_alpha", "a part of loss=mix: NLL of the chosen response, mean over tokens", "loss.parts"
        )
    if odd := [kind for kind in kinds if kind not in DPO]:
        raise UserError(f"loss_type: {odd[0]!r} has no equivalent among prefopt's methods", "prefopt losses lists them")
    if len(kinds) > 1:
        _mix(t, kinds, weights)
        return
    method, settings, said = DPO[kinds[0]]
    smoothing = as_number(t.get("label_smoothing", 0))
    if method == "dpo":
        method, settings, said = _variant(t, smoothing)
    if method == "robust_dpo" and smoothing == 0:
        method, said = "dpo", "without label_smoothing it is DPO"
    if method != "ld_dpo":
        t.note(Kind.WITHOUT, "ld_alpha", f"not of loss={method}")
    t.groups["loss"] = method
    t.note(Kind.OTHER if said else Kind.TAKEN, "loss_type", said, f"loss={method}")
    if method != "sft":
        _beta(t)
    for key, value in settings.items():
        t.set(f"loss.{key}", value, f"from loss_type: {kinds[0]}")
    if method in SMOOTHED and smoothing:
        t.take("label_smoothing", "loss.label_smoothing", smoothing)
    elif method not in SMOOTHED and method != "cdpo":
        t.note(Kind.WITHOUT, "label_smoothing", f"{smoothing:g}; not of loss={method}")
    if method == "discopop":
        t.set("loss.tau", as_number(t.get("discopop_tau", 0.05)), "from discopop_tau")
        t.note(Kind.TAKEN, "discopop_tau", to="loss.tau")


def _variant(t: Taking, smoothing: float) -> tuple[str, dict[str, Any], str]:
    """The sigmoid loss with one of the switches that make it another method."""
    divergence = str(t.get("f_divergence_type", "reverse_kl")).lower().removesuffix("_divergence")
    if smoothing:
        said = "TRL from 0.29 ignores it with sigmoid and trains DPO; up to 0.24 it trained this"
        t.take("label_smoothing", "loss.label_smoothing", smoothing, said)
        return "cdpo", {}, "label_smoothing makes it cDPO"
    if t.get("use_weighting"):
        t.note(Kind.OTHER, "use_weighting", "weights above 1 are not clamped, as in TRL", "loss=wpo")
        return "wpo", {"clamp": "none"}, "use_weighting makes it WPO"
    if t.get("ld_alpha") is not None:
        t.take("ld_alpha", "loss.ld_alpha", as_number(t.get("ld_alpha")))
        return "ld_dpo", {}, "ld_alpha makes it LD-DPO"
    if divergence in ("js", "forward_kl", "alpha"):
        t.take("f_divergence_type", "loss.divergence", divergence)
        if divergence == "alpha":
            t.set("loss.alpha", as_number(t.get("f_alpha_divergence_coef", 0.5)), "from f_alpha_divergence_coef")
            t.note(Kind.TAKEN, "f_alpha_divergence_coef", to="loss.alpha")
        return "f_dpo", {}, "f_divergence_type makes it f-DPO"
    t.note(Kind.WITHOUT, "f_divergence_type", "reverse_kl is DPO")
    return "dpo", {}, ""


def _mix(t: Taking, kinds: list[str], weights: list[Any]) -> None:
    beta = as_number(t.get("beta", 0.1))
    parts = []
    for kind, weight in zip(kinds, weights, strict=False):
        method, settings, _ = DPO[kind]
        part = {"name": method, "weight": as_number(weight), **settings}
        parts.append(part if method == "sft" else {**part, "beta": beta})
    t.groups["loss"] = "mix"
    t.set("loss.parts", parts, "from loss_type, loss_weights, rpo_alpha and beta")
    for key in ("loss_type", "loss_weights", "beta"):
        t.note(Kind.TAKEN, key, to="loss.parts")
    t.note(Kind.NONE, "label_smoothing", "give it to the part that it is meant for")


def _cpo(t: Taking) -> None:
    kind = str(t.get("loss_type", "sigmoid"))
    alpha = as_number(t.get("cpo_alpha", 1.0))
    if kind == "sigmoid":
        t.groups["loss"] = "cpo"
        t.note(Kind.TAKEN, "loss_type", to="loss=cpo")
        _beta(t)
        _nll_weight(t, alpha)
        _smoothing(t)
        t.note(Kind.WITHOUT, "simpo_gamma", "of loss_type simpo alone")
        return
    if kind not in ("simpo", "alphapo"):
        raise UserError(
            f"loss_type: {kind!r} of CPO has no equivalent among prefopt's methods", "loss=cpo is its sigmoid"
        )
    beta = _beta(t)
    shape = as_number(t.get("alpha", 0.0))
    method = "alphapo" if kind == "alphapo" or shape else "simpo" if alpha == 0 else "cpo_simpo"
    said = f"with cpo_alpha={alpha:g} it is SimPO plus an NLL of the chosen response" if method == "cpo_simpo" else ""
    t.groups["loss"] = method
    t.note(Kind.OTHER if said else Kind.TAKEN, "loss_type", said, f"loss={method}")
    if method == "cpo_simpo":
        _nll_weight(t, alpha, "left out it is 1, not 0: for SimPO itself choose loss=simpo")
    elif method == "alphapo":
        t.set("loss.alpha", shape, "from alpha")
        t.note(Kind.TAKEN, "alpha", to="loss.alpha")
        t.note(Kind.NONE if alpha else Kind.WITHOUT, "cpo_alpha", "AlphaPO has no NLL here" if alpha else "0: no NLL")
    else:
        t.note(Kind.TAKEN, "cpo_alpha", "0: no NLL", "loss=simpo")
    take_gamma(t, "simpo_gamma", beta, 0.5)
    if method == "simpo":
        _smoothing(t)
    else:
        t.note(Kind.NONE if t.get("label_smoothing") else Kind.WITHOUT, "label_smoothing", f"not of loss={method}")


def take_gamma(t: Taking, key: str, beta: float, default: float) -> None:
    """A margin in units of the reward, which is divided by beta: `gamma_beta_ratio` is in nats per token."""
    gamma = as_number(t.get(key, default))
    ratio = round(gamma / beta, 10)
    said = f"gamma / beta here: {gamma:g} / {beta:g}"
    if t.get(key) is None:
        t.assume(key, "loss.gamma_beta_ratio", ratio)
    else:
        t.take(key, "loss.gamma_beta_ratio", ratio, said)


def _nll_weight(t: Taking, value: float, said: str = "") -> None:
    if t.get("cpo_alpha") is None:
        t.assume("cpo_alpha", "loss.nll_weight", value)
    else:
        t.take("cpo_alpha", "loss.nll_weight", value, said)


def _smoothing(t: Taking) -> None:
    if t.get("label_smoothing"):
        t.take("label_smoothing", "loss.label_smoothing", as_number(t.get("label_smoothing")))


def _simpo(t: Taking) -> None:
    """SimPO's own repository, whose gamma is the ratio already."""
    t.groups["loss"] = "simpo"
    _beta(t, default=2.0)
    if t.get("gamma_beta_ratio") is None:
        t.assume("gamma_beta_ratio", "loss.gamma_beta_ratio", 0.25)
    else:
        t.take("gamma_beta_ratio", "loss.gamma_beta_ratio", as_number(t.get("gamma_beta_ratio")))
    form = {"sigmoid": "logistic", "hinge": "hinge"}.get(str(t.get("loss_type", "sigmoid")))
    if form is None:
        raise UserError(f"loss_type: {t.get('loss_type')!r} of SimPO has no equivalent", "sigmoid or hinge")
    t.set("loss.form", form, "from loss_type")
    t.note(Kind.TAKEN, "loss_type", to=f"loss.form={form}")
    _smoothing(t)
    t.note(Kind.NONE if t.get("sft_weight") else Kind.WITHOUT, "sft_weight", "loss=cpo_simpo has an NLL")


def _orpo(t: Taking) -> None:
    t.groups["loss"] = "orpo"
    _beta(t, "loss.lam", said="the weight of the odds-ratio term, lambda in the paper")
    t.set("loss.nll_over", "sequence", "TRL's NLL covers the prompt too, the paper's equation does not (response)")


def _kto(t: Taking) -> None:
    kind = str(t.get("loss_type", "kto"))
    if kind not in ("kto", "apo_zero_unpaired"):
        raise UserError(
            f"loss_type: {kind!r} of KTO has no equivalent among prefopt's methods", "kto, apo_zero_unpaired"
        )
    t.groups["loss"] = kind
    t.note(Kind.TAKEN, "loss_type", to=f"loss={kind}")
    _beta(t)
    for key in ("desirable_weight", "undesirable_weight"):
        if kind == "kto" and t.get(key) is not None:
            t.take(key, f"loss.{key}", as_number(t.get(key)))
        else:
            t.note(Kind.NONE if t.get(key, 1) != 1 else Kind.WITHOUT, key, f"loss={kind} has no weights")


def _sft(t: Taking) -> None:
    t.groups["loss"] = "sft"
    t.set("loss.reduction", "token_mean", "as TRL: the mean over all trained tokens")
    only = "prefopt trains on the response: the last assistant turn of a conversation, EOS included"
    for key in ("completion_only_loss", "assistant_only_loss"):
        t.note(Kind.TAKEN if t.get(key) else Kind.OTHER, key, only, "loss=sft")
    t.note(
        Kind.OTHER, "dataset_text_field", "a text without a prompt has no response to train on: give both", "data.train"
    )
    for key in ("packing", "packing_strategy", "eval_packing", "padding_free"):
        t.note(Kind.WITHOUT, key, "rows are packed here and never see each other; TRL counts a packed row as one row")


def _reward(t: Taking) -> None:
    t.groups["loss"] = "reward_bt"
    if t.get("center_rewards_coefficient") is not None:
        t.take("center_rewards_coefficient", "loss.center", as_number(t.get("center_rewards_coefficient")))


METHODS: dict[str, Callable[[Taking], None]] = {
    "dpo": _dpo,
    "cpo": _cpo,
    "simpo": _simpo,
    "orpo": _orpo,
    "kto": _kto,
    "sft": _sft,
    "reward": _reward,
}
"""Trainer to what takes its method."""
