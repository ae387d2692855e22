"""The work of `measure=preferences`: models to scores, chunk after chunk; scores to figures and rows."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from prefopt.batch import Batch, Loss, Outputs, WeighsMargins
from prefopt.data.tokenizer import tokenizer_fingerprint
from prefopt.errors import UserError
from prefopt.evaluate.kept_scores import KeptScores
from prefopt.evaluate.measure import EvalPlace, Figure, Measured
from prefopt.evaluate.measured_sets import MeasuredSet, data_settings, sets_of_files, sets_of_run
from prefopt.evaluate.measures.preferences import Preferences
from prefopt.evaluate.models import (
    holds_reward_model,
    open_measured,
    open_reference,
    positions_of,
    say,
    tokenizer_at,
)
from prefopt.evaluate.preference_figures import kl_of_responses, preference_figures
from prefopt.evaluate.row_scores import score_rows
from prefopt.evaluate.scored_set import Judgement, ScoredSet
from prefopt.evaluate.set_settings import read_sets
from prefopt.evaluate.trained import open_trained
from prefopt.losses import make_loss
from prefopt.model.forward import Forward
from prefopt.model.layout import settle_layout
from prefopt.needs import LIVE
from prefopt.train.quiet import quiet_libraries
from prefopt.train.rows import Rows
from prefopt.train.work import tokens_per_entry

_POLICY, _REFERENCE = "policy", "reference"
_OTHER_PROMPTS = "-other-prompts"
"""Ends the name of a stage that scores each prompt with responses to another."""
_COUPLED = frozenset({"kl", "step"})


class Work:
    """Sets, models and method of one evaluation, checked; `score` and `measured` do it.

    Raises: UserError for what does not go together; RunError for disk or network.
    """

    def __init__(self, measure: Preferences, place: EvalPlace) -> None:
        quiet_libraries()
        self.place = place
        self.measure = measure
        self.trained = None if place.run is None else open_trained(str(place.run))
        said = measure.loss or (None if self.trained is None else self.trained.settings.loss)
        self.method = "" if said is None else str(said["name"])
        self.loss: Loss | None = None if said is None else make_loss(said)
        self.is_reward_model = holds_reward_model(place.model)
        self._check_models()
        self.compares = bool(place.settings.reference) and not self.is_reward_model
        self.needs = frozenset({"pairs", "rewards"}) if self.is_reward_model else frozenset({"pairs"})
        if self.loss is not None:
            has_own = self.loss.needs & {"pairs", "labels", "ranking"}
            self.needs = self.loss.needs if has_own else self.loss.needs | {"pairs"}
        self.asks = self.needs | {"reverse_kl"} if measure.kl else self.needs
        self.sets = self._open_sets()
        self.kept = {
            one.name: KeptScores(place.folder, one.name, len(one.data), measure.chunk_size) for one in self.sets
        }
        for one in self.sets:
            self.kept[one.name].claim(one.data.fingerprint)

    def _check_models(self) -> None:
        """Raises: UserError where method, model and reference do not go together."""
        model, wants_head = self.place.model, self.loss is not None and "rewards" in self.loss.needs
        if self.is_reward_model and self.loss is not None and not wants_head:
            raise UserError(
                f"measure.loss: {self.method} is of language models, and {model} is a reward model",
                "measure.loss={name: reward_bt}, or leave it out",
            )
        if wants_head and not self.is_reward_model:
            raise UserError(
                f"measure.loss: {self.method} is of reward models, and {model} is a language model",
                "for instance measure.loss={name: dpo}",
            )
        if self.is_reward_model and self.place.settings.reference and self.trained is None:
            raise UserError(
                f"reference: {self.place.settings.reference} has no effect, since {model} is a reward model",
                "leave it out",
            )

        if self.is_reward_model and self.measure.kl:
            raise UserError(
                f"measure.kl: {model} is a reward model, which has no distribution over tokens", "leave measure.kl out"
            )

    def _open_sets(self) -> list[MeasuredSet]:
        positions = positions_of(self.place.model)
        template = self.place.settings.chat_template
        settings = data_settings(self.trained, self.measure.pairs, self.measure.max_length, template, positions)
        if "margins" in self.needs and any(margin.kind != "column" for margin in settings.margins):
            raise UserError(
                f"measure.loss: {self.method} takes margins that a model gives, which are no part of the files",
                "measure.loss={name: dpo}, or put the margins into columns",
            )
        if self.measure.sets:
            tokenizer = tokenizer_at(self.place, self.place.model)
            named = read_sets(self.measure.sets, "measure.sets")
            sets = sets_of_files(named, settings, tokenizer, self.needs)
        else:
            assert self.trained is not None, "check() has seen to it"
            sets = sets_of_run(self.trained, settings, self.needs)
        for one in sets:
            wanted = self.loss.num_margins if isinstance(self.loss, WeighsMargins) else 0
            (first, *_) = one.data[0].margins or [[]]
            if wanted and len(first) != wanted:
                raise UserError(
                    f"measure.loss: {self.method} weighs {wanted} margins, the rows of {one.name} have {len(first)}",
                    "other data or another method",
                )
        return sets

    def score(self, number: int, of: int) -> None:
        """Score the chunks that are this process's and missing, the model's first, then the reference's.

        Raises: UserError for a model that cannot be loaded; RunError for numbers that are not finite.
        """
        for stage in (_POLICY, _REFERENCE) if self.compares else (_POLICY,):
            jobs = [(one, name, chunk) for one, name, chunk in self._jobs(stage)][number::of]
            jobs = [(one, name, chunk) for one, name, chunk in jobs if not self.kept[one.name].has(name, chunk)]
            if jobs:
                self._score(stage, jobs)

    def _jobs(self, stage: str) -> list[tuple[MeasuredSet, str, int]]:
        """Every chunk of a stage: its set, the stage under which it is kept, its number."""
        needs_kl = self.loss is not None and "kl" in self.loss.needs
        names = (stage, stage + _OTHER_PROMPTS) if needs_kl else (stage,)
        return [(one, name, c) for one in self.sets for name in names for c in range(self.kept[one.name].num_chunks)]

    def _score(self, stage: str, jobs: list[tuple[MeasuredSet, str, int]]) -> None:
        opened = open_measured(self.place) if stage == _POLICY else open_reference(self.place)
        forward: Forward = opened.policy
        asks = self.asks if stage == _POLICY else frozenset()
        if stage == _REFERENCE and self.trained is None:
            self._check_same_tokenizer()
        if stage == _POLICY and self.asks & LIVE:
            live = open_reference(self.place).policy
            settle_layout(live, live, opened.policy.layout)
            forward = _beside(opened.policy, live)
        worth, kept = tokens_per_entry(opened.policy), frozenset({"prompt_logps", "rewards", "kl"})
        rows_of: dict[tuple[str, bool], Rows] = {}
        begun, done = time.perf_counter(), 0
        for count, (one, name, chunk) in enumerate(jobs, 1):
            others = name.endswith(_OTHER_PROMPTS)
            if (one.name, others) not in rows_of:
                of_set = frozenset({"kl"}) if others else asks & kept - {"kl"}
                rows = Rows(one.data, of_set, opened.policy.shares_prompts, worth)
                rows_of[one.name, others] = rows.baseline if others and rows.baseline is not None else rows
            places = self.kept[one.name].places(chunk)
            budget = self.place.settings.tokens_per_batch
            columns = score_rows(
                forward,
                rows_of[one.name, others],
                places,
                frozenset() if others else asks,
                budget,
                opened.device,
            )
            self.kept[one.name].write(name, chunk, columns)
            done += len(places)
            say(f"{stage}: {count} of {len(jobs)} chunks, {done / (time.perf_counter() - begun):.1f} rows/s")
        del opened, forward
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _check_same_tokenizer(self) -> None:
        """Raises: UserError where the reference would read other words in the same ids."""
        model, reference = self.place.model, self.place.settings.reference
        one, other = (tokenizer_fingerprint(tokenizer_at(self.place, path)) for path in (model, reference))
        if one != other:
            raise UserError(
                f"reference: {reference} has another tokenizer than {model}, so that it would read other words",
                "take the model that training started from",
            )

    def measured(self) -> Measured:
        """The figures of every set, once all is scored. Raises: RunError where a file of scores is damaged."""
        figures: dict[str, Figure] = {}
        rows: list[dict[str, Any]] = []
        left_out: dict[str, int] = {}
        for one in self.sets:
            scored = self._scored(one)
            judgement = None if self.loss is None else scored.judge(self.loss)
            settings = self.place.settings
            drawn = settings.resamples, settings.seed
            found = preference_figures(scored, judgement, one.categories, *drawn, self.measure.kl)
            figures |= {f"{one.name}/{name}": figure for name, figure in found.items()}
            rows += _rows(one, scored, judgement)
            left_out |= {f"{one.name}: {reason}": count for reason, count in (one.left_out or {}).items()}
        return Measured(figures, rows=rows, left_out=left_out, notes=self._notes())

    def _scored(self, one: MeasuredSet) -> ScoredSet:
        kept = self.kept[one.name]
        kl = None
        if self.loss is not None and "kl" in self.loss.needs:
            ratios = (kept.columns(stage + _OTHER_PROMPTS)["logps"] for stage in (_POLICY, _REFERENCE))
            policy, reference = ratios
            kl = float((policy - reference).mean())
        return ScoredSet(one.data, kept.columns(_POLICY), kept.columns(_REFERENCE) if self.compares else None, kl)

    def _notes(self) -> tuple[str, ...]:
        notes = [one.note for one in self.sets if one.note]
        if self.loss is None and not self.is_reward_model:
            notes.append("no method is named: loss and rewards are left out (measure.loss={name: dpo, beta: 0.1})")
        if self.compares:
            notes.append("logratio: log p - log p_reference of the given responses; it estimates no KL divergence")
        if self.measure.kl:
            notes.append("kl: KL(model || reference) summed over a response's positions, along the responses as given")
        if self.loss is not None and self.loss.needs & _COUPLED:
            notes.append(f"the loss of {self.method} couples rows: its interval takes what couples them as given")
        if self.trained is not None and self.trained.settings.model.base != "plain":
            base = self.trained.settings.model.base
            notes.append(
                f"trained on weights held as {base}, measured on plain ones: training's figures differ a little"
            )
        return tuple(notes)


def _beside(policy: Callable[..., Outputs], reference: Any) -> Forward:
    """A policy with a live reference, for the methods that compare whole distributions."""

    def forward(batch: Batch, asks: frozenset[str] = frozenset(), /) -> Outputs:
        return policy(batch, asks, reference)

    return forward


def _rows(one: MeasuredSet, scored: ScoredSet, judgement: Judgement | None) -> list[dict[str, Any]]:
    """One mapping per row: its responses in the order of the data, and the pairs (chosen, rejected) as places."""
    policy, reference = scored.policy, scored.reference
    rewards = policy.get("rewards") if judgement is None else judgement.rewards
    kl = kl_of_responses(policy) if "reverse_kl" in policy else None
    offsets, found = one.data.response_offsets, []
    for place, row in enumerate(scored.rows):
        responses = []
        for number in range(int(offsets[place]), int(offsets[place + 1])):
            tokens = int(policy["lengths"][number])
            response: dict[str, Any] = {"tokens": tokens}
            if "logps" in policy:
                logp = float(policy["logps"][number])
                response |= {"logps": logp, "mean_logp": logp / tokens}
            if reference is not None:
                response["reference_logps"] = float(reference["logps"][number])
            if rewards is not None:
                response["reward"] = float(rewards[number])
            if kl is not None:
                response["kl"] = float(kl[number])
            responses.append(response)
        about = {"id": row.id, "set": one.name}
        if one.categories is not None:
            about["category"] = one.categories[place]
        found.append({**about, "responses": responses, "pairs": [list(pair) for pair in row.pairs]})
    return found
