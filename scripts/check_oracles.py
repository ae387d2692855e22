"""Check the methods against numbers recorded from their authors' own code.

    python scripts/check_oracles.py [--dir DIR] [--head-rows N]

Each file of DIR (default: tests/oracles) holds cases of one method: inputs, settings, and the losses, rewards and
gradients they must give; `end_to_end.json` does the same for a whole model, which here goes through the packed,
prompt-shared forward, N tokens at the LM head at a time where --head-rows says so. Prints a table and exits 1 on a
miss. Files of anything else are listed (those of sampling and ranking are read by tests/pairs).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from oracle_adapters import ADAPTERS, END_TO_END
from oracle_adapters.end_to_end import pairs_of, rows_of
from rich.console import Console
from rich.table import Table
from torch import Tensor

from prefopt.batch import LossOutput, Responses, Unit, WholeStep
from prefopt.losses import make_loss
from prefopt.model import logps
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


def run_losses(settings: list[tuple[float, dict]], responses: Responses, counts: dict) -> tuple[Tensor, LossOutput]:
    """The weighted sum of losses over the same responses, and the output of the first one."""
    outputs = [(weight, make_loss(s)(responses)) for weight, s in settings if weight]
    return sum(weight * output.total(counts) for weight, output in outputs), outputs[0][1]


def as_whole_step(settings: list[tuple[float, dict]], responses: Responses) -> Responses:
    """`responses` as all that a loss observes of the step, where it asks for that; a step that is given stays."""
    losses: list[Any] = [make_loss(s) for _, s in settings]
    observing = [loss for loss in losses if "step" in loss.needs]
    if not observing or responses.whole_step is not None:
        return responses
    (loss,) = observing
    values = loss.observe(responses)
    return replace(responses, whole_step=WholeStep(values, slice(0, len(values))))


def counts_of(responses: Responses, num_items: int | None = None) -> dict:
    """Units of a batch given as Responses. num_items: the tokens of the whole accumulation window, where known."""
    imitated = responses.imitated_token_logps.shape[0]
    prompt = 0 if responses.prompt_logps is None else responses.prompt_logps.shape[0]
    labels = responses.labels
    desirable = 0 if labels is None else int(labels.sum())
    return {
        Unit.TOKEN: num_items or imitated,
        Unit.SEQUENCE_TOKEN: imitated + prompt,
        Unit.RESPONSE: responses.lengths.shape[0],
        Unit.DESIRABLE: desirable,
        Unit.UNDESIRABLE: 0 if labels is None else len(labels) - desirable,
        Unit.DESIRABLE_TOKEN: 0 if labels is None else int(responses.lengths[labels].sum()),
        Unit.PAIR: responses.pairs.shape[0],
        Unit.EXAMPLE: responses.best.shape[0],
    }


def check_file(method: str, oracle: dict) -> Iterator[Check]:
    """Every number of every case of one method's file."""
    adapter = ADAPTERS[method]
    for case in oracle["cases"]:
        tolerance = oracle["tolerance"][case["dtype"]]
        hyper, expected = case["hyperparameters"], case["expected"]
        leaves, responses = adapter.read(case["inputs"])
        settings = adapter.settings(hyper)
        responses = as_whole_step(settings, responses)
        counts = counts_of(responses, hyper.get("num_items_in_batch"))
        loss, output = run_losses(settings, responses, counts)
        if hyper.get("reference_free"):  # the original leaves the reference out of the loss and in the rewards
            assert responses.reference_logps is not None
            free = replace(responses, reference_logps=torch.zeros_like(responses.reference_logps))
            loss, without = run_losses(settings, free, counts)
            output = LossOutput(without.components, output.rewards)
        found = {"loss": loss, **adapter.parts(output, responses), **adapter.more(hyper, responses)}
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

METRICS = {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "kl"}


def load_tiny(folder: Path) -> Policy:
    from transformers import AutoModelForCausalLM

    return Policy(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


def check_end_to_end(oracle: dict, folder: Path, head_rows: int | None = None) -> Iterator[Check]:
    """Log-probabilities of every token, and loss, metrics and gradient of every case.

    head_rows: tokens that meet the LM head at a time; None for prefopt's own budget, which holds all of them.
    """
    if head_rows is not None:
        logps.MAX_LOGITS = head_rows * load_tiny(folder / oracle["models"]["policy"]).vocabulary
    tolerance, examples = oracle["tolerance"], oracle["examples"]
    expected_logps = oracle["per_token_logps_float64"]

    def load(name: str) -> Policy:
        return load_tiny(folder / oracle["models"][name])

    with torch.no_grad():
        for name in ("policy", "reference"):
            batch = pack(pairs_of(examples), prompt_logps=True)
            found = load(name)(batch)
            e = expected_logps[name]
            both = [values for pair in zip(e["chosen"], e["rejected"], strict=True) for values in pair]
            limit = tolerance["per_token_logps_float32"]
            yield compare(f"{name} logps", "response tokens", found.token_logps, both, limit)
            yield compare(f"{name} logps", "prompt tokens", found.prompt_logps, e["chosen_prompt"], limit)
    for case in oracle["cases"]:
        policy = load("policy")
        settings = END_TO_END[case["name"]](case["hyperparameters"])
        needs = frozenset().union(*(make_loss(s).needs for _, s in settings))
        rows = rows_of(case, examples, load)
        batch = pack(rows.encoded, prompt_logps="prompt_logps" in needs)
        responses = replace(respond(policy, batch), **rows.columns)
        loss, output = run_losses(settings, responses, batch.counts())
        loss.backward()
        yield compare(case["name"], "loss", loss, case["loss_float32"], tolerance["loss_float32"])
        if case["name"] != "sft_on_chosen":  # there the trainer logs DPO's rewards, which SFT has no beta for
            metrics = metrics_of(responses, output)
            for key in METRICS & case.get("metrics_float32", {}).keys():
                limit = tolerance["loss_float32"]
                yield compare(case["name"], key, metrics[key], case["metrics_float32"][key], limit)
        yield from _check_gradient(case, policy, tolerance["gradient_float32"])


def metrics_of(responses: Responses, output: LossOutput) -> dict[str, Tensor]:
    """What trainers log, by their names for it."""
    chosen, rejected = responses.paired(output.rewards)
    metrics = {
        "rewards/chosen": chosen.mean(),
        "rewards/rejected": rejected.mean(),
        "rewards/accuracies": (chosen > rejected).double().mean(),
        "rewards/margins": (chosen - rejected).mean(),
    }
    return metrics if responses.kl is None else metrics | {"kl": responses.kl.clamp(min=0)}


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
    parser.add_argument("--head-rows", type=int, help="tokens of a whole model's that meet the LM head at a time")
    given = parser.parse_args(arguments)
    folder = given.dir
    if not folder.is_dir():
        print(f"check_oracles: {folder} is not a folder", file=sys.stderr)
        return 2
    table = Table("method", "cases", "numbers", "largest relative error", "largest share of tolerance", "result")
    missed: list[Check] = []
    for path in sorted(folder.glob("*.json")):
        oracle = json.loads(path.read_text(encoding="utf-8"))
        if path.stem == "end_to_end":
            checks = list(check_end_to_end(oracle, folder, given.head_rows))
        elif path.stem in ADAPTERS:
            checks = list(check_file(path.stem, oracle))
        else:
            table.add_row(path.stem, str(len(oracle["cases"])), "", "", "", "no loss of that name")
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
