"""A whole run on one rank: from the run folder to a saved, verified model."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from prefopt.batch import Loss, Unit
from prefopt.better import sign
from prefopt.cache import cache_folder
from prefopt.data.dataset import Prepared, open_prepared
from prefopt.data.plan import Plan, make_plan, plan_notes
from prefopt.data.tokenizer import load_tokenizer
from prefopt.disk import write_whole
from prefopt.errors import UserError, did_you_mean, stopped_unsaved
from prefopt.losses import make_loss
from prefopt.model.files import model_folder
from prefopt.model.kernel import settle_kernel
from prefopt.model.layout import settle_layout
from prefopt.model.load import load_policy, load_reward_policy
from prefopt.settings import RunSettings, load
from prefopt.train import checkpoint
from prefopt.train.budget import TokenBudget
from prefopt.train.card import model_card
from prefopt.train.checkpoint import Progress
from prefopt.train.collapse import Watch
from prefopt.train.columns import attach_columns, make_rows
from prefopt.train.display import Display, summarise
from prefopt.train.engine import Engine
from prefopt.train.evaluate import EvaluationStopped, evaluate
from prefopt.train.finish import rehearse, save_and_verify
from prefopt.train.fitted import fitted_step
from prefopt.train.live_reference import attach_live_reference
from prefopt.train.loader import Loader
from prefopt.train.measure import measure_budget
from prefopt.train.mismatched import longest_row
from prefopt.train.nonfinite import recorded
from prefopt.train.optim import learning_rates
from prefopt.train.signals import StopFlag
from prefopt.train.skips import Skips
from prefopt.train.space import check_space, num_saves
from prefopt.train.step_zero import check_start
from prefopt.train.track import Clock, MetricsFile, Tracker
from prefopt.train.work import balance

STOPPED = 75
"""Exit code of a run that was asked to stop and saved itself: the same command goes on (EX_TEMPFAIL)."""


class Trainer:
    """Everything a run needs, put together once; `run` is the loop."""

    def __init__(self, run_dir: Path) -> None:
        self.dir = run_dir
        self.settings: RunSettings = load(run_dir / "run.yaml")
        self.prepared: Prepared = open_prepared(json.loads((run_dir / "data.json").read_text(encoding="utf-8")))
        self.loss: Loss = make_loss(self.settings.loss)
        self.gives = "rewards" if "rewards" in self.loss.needs else "log-probabilities"
        self.engine = Engine(self.settings)
        self.stop_flag = StopFlag()
        self.display = Display(Console(), shown=self.engine.is_main)
        model, template = self.settings.model, self.settings.data.chat_template
        self.tokenizer = load_tokenizer(model.tokenizer or model.path, model.revision, template)
        self.start_folder = model_folder(self.settings.model.path, self.settings.model.revision)
        _make_deterministic(self.settings)
        longest = self._load_model()
        sets = make_rows(self.engine, self.loss.needs, [self.prepared.train, *self.prepared.eval.values()])
        self.rows = sets[self.prepared.train.name]
        self.eval_rows = {name: rows for name, rows in sets.items() if rows is not self.rows}
        self.plan: Plan = self._make_plan()
        check_space(self.engine, run_dir, num_saves(self.settings.train, self.plan), self.start_folder)
        say, cache = self.display.say, cache_folder(self.settings.data)
        attach_live_reference(self.engine, self.loss.needs, longest, say)
        self.budget = TokenBudget(self.engine, run_dir)
        if not self.budget.is_known:
            self.budget.set(0, measure_budget(self.engine, self.loss, self.rows, self.plan, say))
        # Scoring knows no gradients, so that what fits a step fits it.
        self.engine.tokens_per_micro_batch = self.budget.at(0)
        self.reference_rows_scored = attach_columns(self.engine, self.loss.needs, sets.values(), cache, longest, say)
        self.rates = learning_rates(self.settings.optim, len(self.plan))
        resumed = self._resume()
        self.progress = resumed or Progress()
        self.has_saved = self.is_rehearsed = resumed is not None
        done = resumed.step if resumed else -1  # what was logged after the checkpoint is logged again
        looked = not self.progress.looks_due
        self.metrics = MetricsFile(run_dir / "metrics.jsonl", done, looked, self.engine.is_main)
        self.tracker = Tracker(self.engine, self.settings, run_dir)
        self.skips = Skips(self.engine, run_dir, self.progress, say)
        asked = next(iter(self.eval_rows.values()), self.rows)
        self.watch = Watch(self.engine, self.tokenizer, asked, run_dir, self.progress)

    def _load_model(self) -> int:
        """The policy under its engine, its layout settled; returns the tokens of the longest sequence."""
        settings, sets = self.settings, [self.prepared.train, *self.prepared.eval.values()]
        longest = max(longest_row(s) for s in sets)
        torch.manual_seed(settings.train.seed)
        load = load_reward_policy if "rewards" in self.loss.needs else load_policy
        reads = self.engine.kind.reads_weights
        self.engine.wrap(self.engine.together(lambda: load(settings.model, longest=longest, reads=reads)))
        layout = settle_layout(self.engine.policy, self.engine, settings.model.layout)
        if layout == "padded" and settings.model.layout == "auto":
            self.display.say("this model cannot keep packed rows apart: prompts are repeated, one padded row each")
        if layout != "padded" and (
            said := settle_kernel(self.engine.policy, settings.model.attention, self.engine.arithmetic)
        ):
            self.display.say(said)
        self.display.say(self.engine.in_force)
        return longest

    def _make_plan(self) -> Plan:
        train = self.settings.train
        return make_plan(
            self.rows.counts,
            self.prepared.train.sources,
            batch_size=train.batch_size,
            epochs=train.epochs,
            max_steps=train.max_steps,
            seed=train.seed,
        )

    def _resume(self) -> Progress | None:
        """Put back the newest whole checkpoint; None where there is none."""
        found = checkpoint.newest(self.dir / "checkpoints") if self.engine.is_main else None
        found = self.engine.gather(found)[0]
        if found is None:
            return None
        path, progress, complaints = found
        for complaint in complaints:
            self.display.say(f"checkpoint {complaint}")
        if self.engine.is_main and not progress.collapse:
            checkpoint.prune(path.parent, self.settings.train.keep_checkpoints, progress.best_step)
        if other := checkpoint.load(self.engine, path):
            self.display.say(other)
        self.display.say(f"resuming after step {progress.step} of {len(self.plan)}, from {path}")
        return progress

    def run(self) -> None:
        """Evaluate, train, evaluate, save, verify.

        Raises: NonFiniteError, RunError; UserError with exit code 75 after a signal, once everything is saved.
        """
        started = time.perf_counter()
        progress, num_steps = self.progress, len(self.plan)
        with self.display, self.stop_flag, ExitStack() as opened:
            opened.enter_context(recorded(self.dir, self.engine.is_main, progress))
            self.display.steps(progress.step, num_steps)
            self._end_if_collapsed(progress.collapse)
            loader = opened.enter_context(Loader(self.plan, self.rows, self.engine))
            if not any(self.rates):
                self.display.say("nothing will be learned: all steps are warm-up from a rate of 0 (optim.warmup_ratio)")
            if progress.step == 0:
                train, sources = self.settings.train, self.prepared.train.sources
                for note in plan_notes(self.plan, self.rows.counts, sources, train, self.rows.unit):
                    self.display.say(note)
                check_start(self.engine, self.loss, loader, self.budget, self.display.say)
                self._look_first()
            clock = Clock(self.engine)
            if self._looks_are_cut_short():  # those of the checkpoint's step, which a signal had cut short before
                raise self._stopped()
            for step in range(progress.step, num_steps):
                if self._patience_is_over():
                    say = f"stopped early: no better {self.settings.train.best_metric} since step {progress.best_step}"
                    self.display.say(say)
                    break
                clock.restart()
                stop = self._step(step, loader, clock, bool(self.stop_flag))
                progress.looks_due, is_last = True, step + 1 == num_steps
                stop = stop or self._looks_are_cut_short()
                is_due = self.plan.is_due(self.settings.train.save_every, step + 1)
                if stop or is_last or is_due or self._patience_is_over():
                    self._save()
                if stop:
                    raise self._stopped()
                if self.has_saved and not is_last:
                    self._rehearse()
            self._finish(started)

    def _step(self, step: int, loader: Loader, clock: Clock, stop: bool) -> bool:
        self.engine.set_lr(self.rates[step])
        result, work = fitted_step(
            self.engine, self.loss, loader, self.budget, step, stop, self.display.say, self.skips
        )
        self.progress.step = step + 1
        units, tokens, stop_asked = result.pop("units"), result.pop("tokens"), result.pop("stop")
        timings = clock.read(tokens, units[Unit.PAIR] or units[Unit.RESPONSE], loader.seconds_waited())
        place = {"step": step + 1, "epoch": self.plan.epoch(step + 1)}
        if (step + 1) % self.settings.train.log_every == 0 or step + 1 == len(self.plan) or "skipped" in result:
            wasted = balance(self.rows, work.dealt, self.engine.policy.layout)
            values = {**place, "lr": self.rates[step], **result, **wasted, **timings}
            self.metrics.write(values)
            self.tracker.log(values, step + 1)
        self.display.step(step + 1, {**result, **timings})
        return stop_asked

    def _stopped(self) -> UserError:
        return UserError(
            f"stopped by a signal after step {self.progress.step} of {len(self.plan)}, which is saved",
            "the same command goes on from there",
            STOPPED,
        )

    def _look_first(self) -> None:
        """Evaluation and answers before the first update.

        Raises: UserError after a signal, when there is nothing to save yet.
        """
        try:
            self.progress.before = self._evaluate()
        except EvaluationStopped as stopped:
            raise stopped_unsaved(stopped.number) from None
        name, known = self.settings.train.best_metric, self.progress.before
        if name is not None and name not in known:
            raise UserError(f"train.best_metric: no evaluation gives {name}", did_you_mean(name, known))
        self.watch.keep()
        self._end_if_collapsed(self._look())

    def _looks_are_cut_short(self) -> bool:
        """Evaluate and sample as far as due after this step; True, and they stay due, where a signal cut that short."""
        progress, train = self.progress, self.settings.train
        if not progress.looks_due:
            return False
        is_last = progress.step == len(self.plan)
        is_judged = is_last or self.plan.is_due(train.eval_every, progress.step)
        try:
            values = self._evaluate() if is_judged else {}
        except EvaluationStopped:
            return True
        if is_last or self.plan.is_due(self.settings.sample.every, progress.step):
            self._end_if_collapsed(self._look())
        progress.looks_due = False
        if is_judged:
            self._judge(values)
        return False

    def _evaluate(self) -> dict[str, float]:
        """Held-out metrics of every eval set; nothing where train.eval_every is never."""
        values: dict[str, float] = {}
        if self.settings.train.eval_every == "never":
            return values
        for name, rows in self.eval_rows.items():
            found = evaluate(self.engine, self.loss, rows, self.budget.at(self.progress.step), self.stop_flag)
            values |= {f"eval/{name}/{key}": value for key, value in found.items()}
            self.display.say(f"evaluation after step {self.progress.step} on {name}: {summarise(found)}")
        if values:
            line = {"step": self.progress.step, "epoch": self.plan.epoch(self.progress.step), **values}
            self.metrics.write(line)
            self.tracker.log(values, self.progress.step)
        self.progress.latest = values
        return values

    def _judge(self, values: dict[str, float]) -> None:
        """Keep track of the best evaluation, and of how long ago it was; saves a new best one."""
        name, progress = self.settings.train.best_metric, self.progress
        if name is None:
            return
        value = values[name] * sign(name)
        if progress.best is None or value > progress.best:
            progress.best, progress.best_step, progress.at_best = value, progress.step, values
            progress.evaluations_since_best = 0
            self._save()
        else:
            progress.evaluations_since_best += 1

    def _patience_is_over(self) -> bool:
        patience = self.settings.train.early_stop_patience
        return patience is not None and self.progress.evaluations_since_best >= patience

    def _look(self) -> str:
        """Answers as the model gives them now, where they are asked for: their numbers; what has collapsed."""
        values, collapse = self.watch.look(self.display.say)
        if values:
            self.metrics.write({"step": self.progress.step, "epoch": self.plan.epoch(self.progress.step), **values})
            self.tracker.log(values, self.progress.step)
        return collapse

    def _end_if_collapsed(self, collapse: str) -> None:
        """Save beside the checkpoints there are and raise RunError, where the run is not to go on."""
        is_over = bool(collapse) and self.settings.sample.on_collapse == "stop"
        self.progress.collapse = collapse if is_over else ""
        if is_over:
            if self.progress.step:
                self._save(keep=sys.maxsize)
            self.watch.compare()
            raise self.watch.error(collapse)

    def _save(self, keep: int | None = None) -> None:
        """keep: how many checkpoints stay; None: as the recipe says."""
        self.metrics.sync()
        self.skips.sync()
        keep = keep or self.settings.train.keep_checkpoints
        checkpoint.save(self.engine, self.dir / "checkpoints", self.progress, keep)
        self.has_saved = True

    def _rehearse(self) -> None:
        """Once in a run, at its first checkpoint: would the trained model come back from its files?

        Raises: RunError where it would not, before more is spent on it.
        """
        if not self.is_rehearsed:
            difference = rehearse(self.engine, self.tokenizer, self.start_folder, self.rows, self.dir / "model")
            self.display.say(f"the model can be saved: a fresh process finds its {self.gives} to {difference:.1e}")
            self.is_rehearsed = True

    def _finish(self, started: float) -> None:
        """The best weights if they were asked for, samples, the model folder, result.json."""
        progress = self.progress
        if progress.best_step is not None and progress.best_step != progress.step:
            best = self.dir / "checkpoints" / f"step-{progress.best_step:08d}"
            self.display.say(
                f"taking the weights of step {progress.best_step}, best by {self.settings.train.best_metric}"
            )
            checkpoint.load_weights(self.engine, best)
            progress.step, progress.latest = progress.best_step, progress.at_best
        after = progress.latest
        self.watch.compare()
        card = model_card(self.settings, self.dir, progress.before, after, len(self.plan))
        difference = save_and_verify(
            self.engine, self.tokenizer, self.start_folder, self.rows, self.dir / "model", card
        )
        self.display.say(f"saved {self.dir / 'model'}; a fresh process finds the same {self.gives} to {difference:.1e}")
        self.display.fallen(progress.before, after)
        self.tracker.close()
        if self.engine.is_main:
            result = {
                "state": "done",
                "steps": progress.step,
                "skipped": progress.skipped,
                "reference_rows_scored": self.reference_rows_scored,
                "seconds": time.perf_counter() - started,
                "before": progress.before,
                "after": after,
                "metrics": after,
                "reload_difference": difference,
            }
            write_whole(self.dir / "result.json", json.dumps(result, indent=1))


def _make_deterministic(settings: RunSettings) -> None:
    if settings.train.deterministic and torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    np.random.seed(settings.train.seed)
