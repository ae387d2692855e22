"""Sample and score candidates with prefopt, with a plain loop, and with padded batches, side by side.

    python scripts/bench_pairs.py [--sets hh qa chat] [--prompts 16] [--n 8] [--repeats 3]

The same model, prompts, number of answers and limits for all; one process, one after the other, in alternation.

- plain loop: a prompt at a time, `model.generate(num_return_sequences=n)`, as RRHF's authors generate
- padded batch: every prompt n times in one padded batch of `model.generate`, as TRL's trainers that sample do
- prefopt: `prefopt.pairs.sampling`: a prompt is read once for its n answers, rows that ended make room for others

Then the n answers of each prompt are scored by a reward model: one at a time; in padded batches with the prompt
repeated; packed, the prompt once. A model at random never ends an answer, so that a share of its vocabulary counts as
the end: lengths are then spread as those of a real model are, with the mean that the set says. Prints a table of
prompts per second and ratios, and writes JSON. Figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bench.llama import SHAPES, config_of
from rich.console import Console
from rich.table import Table
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from prefopt.batch import Encoded
from prefopt.model.forward import respond
from prefopt.model.policy import RewardPolicy
from prefopt.pack import pack
from prefopt.pairs.lanes import Lanes
from prefopt.pairs.sampling import Drawing, sample, uniforms_of


class Lengths(NamedTuple):
    """Tokens of prompts, the mean of answers, and their limit."""

    prompt: int
    answer: int
    limit: int


SETS = {"hh": Lengths(200, 80, 200), "qa": Lengths(600, 100, 200), "chat": Lengths(150, 200, 400)}
"""As long as the rows of docs/benchmarks.md; prompts of a set differ by a third up and down."""


class Case:
    """One set: the models and prompts that all ways share."""

    def __init__(self, lengths: Lengths, num_prompts: int, n: int) -> None:
        config = config_of(SHAPES["28m"])
        torch.manual_seed(0)
        self.model = LlamaForCausalLM(config).eval()
        config = config_of(SHAPES["28m"])
        config.num_labels = 1
        self.reward = LlamaForSequenceClassification(config).eval()
        self.policy = RewardPolicy(self.reward).eval()
        self.lengths, self.n = lengths, n
        self.ends = list(range(config.vocab_size // lengths.answer))
        drawn = torch.Generator().manual_seed(1)
        spread = lengths.prompt // 3
        self.prompts = []
        for _ in range(num_prompts):
            length = lengths.prompt + int(torch.randint(-spread, spread + 1, (1,), generator=drawn))
            words = torch.randint(len(self.ends), config.vocab_size, (length,), generator=drawn)
            self.prompts.append(words.tolist())
        self.answers: list[list[list[int]]] = []

    def sample_packed(self, seed: int) -> list[list[list[int]]]:
        drawing = Drawing(1.0, 0, 1.0, self.lengths.limit, frozenset(self.ends))
        keys = [str(number) for number in range(len(self.prompts))]
        uniforms = uniforms_of(seed, 0, keys, self.lengths.limit)
        found = sample(Lanes(self.model), self.prompts, self.n, drawing, uniforms, 65536)
        return [[answer.tokens for answer in answers] for answers in found]

    def sample_loop(self, seed: int) -> list[list[list[int]]]:
        torch.manual_seed(seed)
        return [self._generate([prompt], self.n)[0] for prompt in self.prompts]

    def sample_padded(self, seed: int) -> list[list[list[int]]]:
        torch.manual_seed(seed)
        rows = self._generate([prompt for prompt in self.prompts for _ in range(self.n)], 1)
        return [[row[0] for row in rows[k * self.n : (k + 1) * self.n]] for k in range(len(self.prompts))]

    def score_packed(self, _seed: int) -> list[list[float]]:
        order = sorted(range(len(self.prompts)), key=lambda p: len(self.prompts[p]))
        found: dict[int, list[float]] = {}
        with torch.no_grad():
            for start in range(0, len(order), 4):
                chosen = order[start : start + 4]
                rows = [Encoded(str(p), p, self.prompts[p], self.answers[p], [], 0) for p in chosen]
                rewards = respond(self.policy, pack(rows, True, whole_responses=True)).rewards
                assert rewards is not None
                for k, p in enumerate(chosen):
                    found[p] = rewards[k * self.n : (k + 1) * self.n].tolist()
        return [found[p] for p in range(len(self.prompts))]

    def score_loop(self, _seed: int) -> list[list[float]]:
        return [[self._reward([prompt + a])[0] for a in answers] for prompt, answers in zip(self.prompts, self.answers)]

    def score_padded(self, _seed: int) -> list[list[float]]:
        return [self._reward([prompt + a for a in answers]) for prompt, answers in zip(self.prompts, self.answers)]

    def _reward(self, rows: list[list[int]]) -> list[float]:
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        self.reward.set_attn_implementation("sdpa")
        try:
            with torch.no_grad():
                hidden = self.reward.model(input_ids=ids, attention_mask=mask).last_hidden_state
                last = hidden[torch.arange(len(rows)), mask.sum(1) - 1]
                return self.reward.score(last)[:, 0].tolist()
        finally:
            self.policy.use_layout("shared")

    def _generate(self, prompts: list[list[int]], n: int) -> list[list[list[int]]]:
        longest = max(map(len, prompts))
        with torch.no_grad():
            output = self.model.generate(
                torch.tensor([[0] * (longest - len(p)) + p for p in prompts]),
                attention_mask=torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts]),
                max_new_tokens=self.lengths.limit,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=n,
                eos_token_id=self.ends,
                pad_token_id=self.ends[0],
            )[:, longest:].tolist()
        ends = set(self.ends)
        answers = [row[: next((k for k, t in enumerate(row) if t in ends), len(row))] for row in output]
        return [answers[k * n : (k + 1) * n] for k in range(len(prompts))]


WAYS: dict[str, dict[str, Callable[[Case, int], Any]]] = {
    "sample": {"plain loop": Case.sample_loop, "padded batch": Case.sample_padded, "prefopt": Case.sample_packed},
    "score": {"plain loop": Case.score_loop, "padded batch": Case.score_padded, "prefopt": Case.score_packed},
}


def measure(case: Case, repeats: int) -> dict[str, dict[str, Any]]:
    """Prompts per second of each way, medians over repeats that alternate; of sampling also the tokens of an answer."""
    found: dict[str, dict[str, Any]] = {}
    for what, ways in WAYS.items():
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        tokens: dict[str, list[int]] = {name: [] for name in ways}
        results: dict[str, Any] = {}
        for repeat in range(repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                results[name] = way(case, repeat)
                seconds[name].append(time.perf_counter() - start)
                if what == "sample":
                    tokens[name] += [len(answer) for answers in results[name] for answer in answers]
        if what == "sample":
            case.answers = [[answer or [case.ends[0]] for answer in answers] for answers in results["prefopt"]]
        else:
            check_equal(results)
        found[what] = {
            name: {
                "prompts_per_second": len(case.prompts) / statistics.median(times),
                "seconds": times,
                "mean_tokens": statistics.fmean(tokens[name]) if tokens[name] else None,
            }
            for name, times in seconds.items()
        }
    return found


def check_equal(results: dict[str, list[list[float]]]) -> None:
    """Raises: SystemExit where the ways do not give the same rewards."""
    flat = {name: torch.tensor([r for row in rows for r in row]) for name, rows in results.items()}
    for name, rewards in flat.items():
        if not torch.allclose(rewards, flat["plain loop"], atol=1e-3):
            raise SystemExit(f"{name} gives other rewards: {(rewards - flat['plain loop']).abs().max()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("bench-pairs.json"))
    arguments = parser.parse_args()
    console = Console()
    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "prompts": arguments.prompts,
        "n": arguments.n,
        "sets": {},
    }
    table = Table(title=f"prompts per second, {arguments.n} answers to each; in brackets: times the plain loop")
    for column in ("set", "", "plain loop", "padded batch", "prefopt", "tokens of an answer"):
        table.add_column(column)
    for name in arguments.sets:
        found = measure(Case(SETS[name], arguments.prompts, arguments.n), arguments.repeats)
        report["sets"][name] = found
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        both = {way: 1 / sum(1 / found[what][way]["prompts_per_second"] for what in WAYS) for way in WAYS["sample"]}
        for what in (*WAYS, "both"):
            rates = both if what == "both" else {w: found[what][w]["prompts_per_second"] for w in WAYS["sample"]}
            cells = [f"{rate:.2f} ({rate / rates['plain loop']:.2f}x)" for rate in rates.values()]
            means = [found["sample"][w]["mean_tokens"] for w in WAYS["sample"]]
            table.add_row(name, what, *cells, " / ".join(f"{m:.0f}" for m in means) if what == "sample" else "")
    console.print(table)


if __name__ == "__main__":
    main()
