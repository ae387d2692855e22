"""Check the methods against numbers recorded from their authors' own code.

    python scripts/check_oracles.py [--dir DIR]

Each file of DIR (default: tests/oracles) holds cases of one method: inputs, settings, and the losses, rewards and
gradients they must give; `end_to_end.json` does the same for a whole model, which here goes through the packed,
prompt-shared forward. Prints a table and exits 1 on a miss. Files of methods that prefopt does not have are listed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from prefopt.batch import Encoded, LossOutput, Responses
from prefopt.losses import make_loss
from prefopt.losses.orpo import ORPO
from prefopt.model.forward import respond
from prefopt.model.policy import Policy
from prefopt.pack import pack

DEFAULT_DIR = Path(__file__).resolve().parents[1] / "tests" / "oracles"


class Check(NamedTuple):
    """One comparison.

    error: largest |got - expected| / max(|expected|, atol). share: the same as a share of what the tolerance allows;
    above 1 is a miss.
    """

    case: str
    what: str
    error: float
    share: float


def compare(case: str, what: str, got: Any, expected: Any, tolerance: dict[str, float]) -> Check:
    """`got` and `expected` (numbers, lists, ragged lists) under |got - expected| <= atol + rtol * |expected|."""
    g, e = _flat(got), _flat(expected)
    if g.shape != e.shape:
        return Check(case, what, float("inf"), float("inf"))
    difference = (g - e).abs()
    allowed = tolerance.get("atol", 0.0) + tolerance.get("rtol", 0.0) * e.abs()
    relative = difference / e.abs().clamp(min=tolerance.get("atol", 1e-12))
    share = (difference / allowed).nan_to_num(nan=float("inf"))
    return Check(case, what, relative.max().item(), share.max().item())


def _flat(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().double().flatten()
    if isinstance(values, list | tuple):
        return torch.cat([_flat(v) for v in values]) if values else torch.empty(0, dtype=torch.float64)
    return torch.tensor([float(values)], dtype=torch.float64)


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


def _component(output: LossOutput, name: str) -> Tensor:
    (values,) = [c.values for c in output.components if c.name == name]
    return values


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


SFT_REDUCTIONS = {
    "token_mean": "token_mean",
    "sequence_sum_batch_mean": "sequence_sum",
    "sequence_mean_batch_mean": "sequence_mean",
}

ADAPTERS = {
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


def run_losses(settings: list[tuple[float, dict]], responses: Responses, counts: dict) -> tuple[Tensor, LossOutput]:
    """The weighted sum of losses over the same responses, and the output of the first one."""
    outputs = [(weight, make_loss(s)(responses)) for weight, s in settings if weight]
    return sum(weight * output.total(counts) for weight, output in outputs), outputs[0][1]


def counts_of(responses: Responses, num_items: int | None = None) -> dict:
    """Units of a batch given as Responses. num_items: the tokens of the whole accumulation window, where known."""
    imitated = responses.imitated_token_logps.shape[0]
    prompt = 0 if responses.prompt_logps is None else responses.prompt_logps.shape[0]
    return {
        "token": num_items or imitated,
        "sequence_token": imitated + prompt,
        "response": responses.lengths.shape[0],
        "pair": responses.pairs.shape[0],
        "example": responses.best.shape[0],
    }


def check_file(method: str, oracle: dict) -> Iterator[Check]:
    """Every number of every case of one method's file."""
    adapter = ADAPTERS[method]
    for case in oracle["cases"]:
        tolerance = oracle["tolerance"][case["dtype"]]
        hyper, expected = case["hyperparameters"], case["expected"]
        leaves, responses = adapter.read(case["inputs"])
        counts = counts_of(responses, hyper.get("num_items_in_batch"))
        loss, output = run_losses(adapter.settings(hyper), responses, counts)
        if hyper.get("reference_free"):  # the original leaves the reference out of the loss and in the rewards
            assert responses.reference_logps is not None
            free = replace(responses, reference_logps=torch.zeros_like(responses.reference_logps))
            loss, without = run_losses(adapter.settings(hyper), free, counts)
            output = LossOutput(without.components, output.rewards)
        found = {"loss": loss, **adapter.parts(output, responses)}
        for key, value in expected.items():
            if key not in found and key != "grad":
                yield Check(case["id"], f"{key}, which the adapter does not compute", float("inf"), float("inf"))
            elif key != "grad":
                yield compare(case["id"], key, found[key], value, tolerance)
        if "grad" in expected:
            flat = [leaf for leaf_list in leaves.values() for leaf in leaf_list]
            gradients = iter(torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True))
            by_name = {name: [next(gradients) for _ in leaf_list] for name, leaf_list in leaves.items()}
            for name, value in expected["grad"].items():
                yield compare(case["id"], f"d loss / d {name}", by_name[name], value, tolerance)


# --- end to end: a whole model, packed and prompt-shared ---

END_TO_END = {
    "dpo": lambda h: [(1.0, {"name": "dpo", "beta": h["beta"]})],
    "sft": lambda h: [(1.0, {"name": "sft"})],
    "sft_on_chosen": lambda h: [(1.0, {"name": "sft"})],
    "orpo": _orpo_settings,
    "simpo": _simpo_settings,
    "simpo_with_sft": _simpo_settings,
}
METRICS = {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"}


def load_tiny(folder: Path) -> Policy:
    from transformers import AutoModelForCausalLM

    return Policy(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


def encode(examples: list[dict], reference: list[list[float]] | None = None) -> list[Encoded]:
    return [
        Encoded(
            id=f"examples[{number}]",
            index=number,
            prompt=e["prompt_ids"],
            responses=[e["chosen_ids"], e["rejected_ids"]],
            pairs=[(0, 1)],
            best=0,
            reference_logps=reference[number] if reference else None,
        )
        for number, e in enumerate(examples)
    ]


def check_end_to_end(oracle: dict, folder: Path) -> Iterator[Check]:
    """Log-probabilities of every token, and loss, metrics and gradient of every case prefopt has the method for."""
    tolerance, examples = oracle["tolerance"], oracle["examples"]
    expected_logps = oracle["per_token_logps_float64"]
    with torch.no_grad():
        for name in ("policy", "reference"):
            batch = pack(encode(examples), prompt_logps=True)
            response_logps, prompt_logps = load_tiny(folder / oracle["models"][name])(batch)
            e = expected_logps[name]
            both = [logps for pair in zip(e["chosen"], e["rejected"], strict=True) for logps in pair]
            limit = tolerance["per_token_logps_float32"]
            yield compare(f"{name} logps", "response tokens", response_logps, both, limit)
            yield compare(f"{name} logps", "prompt tokens", prompt_logps, e["chosen_prompt"], limit)
        reference = respond(load_tiny(folder / oracle["models"]["reference"]), pack(encode(examples))).logps
    columns = reference.reshape(-1, 2).tolist()
    for case in oracle["cases"]:
        if case["name"] not in END_TO_END:
            continue
        policy = load_tiny(folder / oracle["models"]["policy"])
        settings = END_TO_END[case["name"]](case["hyperparameters"])
        needs = frozenset().union(*(make_loss(s).needs for _, s in settings))
        batch = pack(encode(examples, columns), prompt_logps="prompt_logps" in needs)
        responses = respond(policy, batch)
        loss, output = run_losses(settings, responses, batch.counts())
        loss.backward()
        yield compare(case["name"], "loss", loss, case["loss_float32"], tolerance["loss_float32"])
        chosen, rejected = responses.paired(output.rewards)
        metrics = {
            "rewards/chosen": chosen.mean(),
            "rewards/rejected": rejected.mean(),
            "rewards/accuracies": (chosen > rejected).double().mean(),
            "rewards/margins": (chosen - rejected).mean(),
        }
        if case["name"] != "sft_on_chosen":  # there the trainer logs DPO's rewards, which SFT has no beta for
            for key in METRICS & case.get("metrics_float32", {}).keys():
                limit = tolerance["loss_float32"]
                yield compare(case["name"], key, metrics[key], case["metrics_float32"][key], limit)
        yield from _check_gradient(case, policy, tolerance["gradient_float32"])


def _check_gradient(case: dict, policy: Policy, tolerance: dict) -> Iterator[Check]:
    gradients = {n: p.grad for n, p in policy.model.named_parameters()}
    for key, value in case["gradient_float32"].items():
        if key == "global_norm":
            got: Any = torch.stack([g.double().norm() for g in gradients.values()]).norm()
        elif key == "norms":
            got, value = [gradients[n].double().norm() for n in value], list(value.values())
        else:  # for instance "lm_head.weight[5,:4]"
            name, place = key[:-1].split("[")
            row, columns = place.split(",:")
            got = gradients[name][int(row), : int(columns)]
        yield compare(case["name"], f"gradient {key}", got, value, tolerance)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="folder of oracle files")
    folder = parser.parse_args(arguments).dir
    if not folder.is_dir():
        print(f"check_oracles: {folder} is not a folder", file=sys.stderr)
        return 2
    table = Table("method", "cases", "numbers", "largest relative error", "largest share of tolerance", "result")
    missed: list[Check] = []
    for path in sorted(folder.glob("*.json")):
        oracle = json.loads(path.read_text(encoding="utf-8"))
        if path.stem == "end_to_end":
            checks = list(check_end_to_end(oracle, folder))
        elif path.stem in ADAPTERS:
            checks = list(check_file(path.stem, oracle))
        else:
            table.add_row(path.stem, str(len(oracle["cases"])), "", "", "", "no such method yet")
            continue
        misses = [c for c in checks if not c.share <= 1]
        missed += misses
        table.add_row(
            path.stem,
            str(len({c.case for c in checks})),
            str(len(checks)),
            f"{max(c.error for c in checks):.1e}",
            f"{max(c.share for c in checks):.1e}",
            f"{len(misses)} missed" if misses else "ok",
        )
    console = Console()
    console.print(table)
    for check in missed:
        console.print(f"MISS {check.case}: {check.what}: relative error {check.error:.2e}", markup=False)
    return 1 if missed or not table.row_count else 0


if __name__ == "__main__":
    sys.exit(main())
