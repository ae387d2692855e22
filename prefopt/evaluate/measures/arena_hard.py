"""Arena-Hard's figures from its judgment files: win rates by Bradley and Terry, with control for style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prefopt.errors import UserError
from prefopt.evaluate.measure import EvalPlace, Figure, Measured
from prefopt.evaluate.settings import EvalSettings

if TYPE_CHECKING:
    from prefopt.evaluate.bradley_terry import Comparison
    from prefopt.evaluate.judgment_files import Judgment

__all__ = ["ArenaHard"]

_STYLES = ("length", "markdown")


@dataclass(frozen=True)
class ArenaHard:
    """Win rates of models against one baseline, from a judge's verdicts in both orders (Li et al. 2024, 2406.11939).

    win_rate: 100 * sigmoid(strength), strength of a Bradley-Terry fit in which the baseline has 0; a strong verdict
    (A>>B) counts `strong` times, a tie half for each. style_controlled_win_rate: the same with features of style in the
    fit, each brought to mean 0 and deviation 1 over all games, as arena-hard-auto's show_result.py does, so that it
    holds for the average difference in style. The features: prefopt/evaluate/style_features.py.

    Intervals: 95 %, of `resamples` bootstraps over questions. arena-hard-auto draws 100 times, single copies of games
    (a strong verdict is three copies), and shows 5 to 95 % in v2.0: its intervals are narrower.

    judgments: a list of files, model_judgment/JUDGE/MODEL.jsonl, or name to file; a list takes the names from the
        files. strong: what a strong verdict counts. category: only these rows (v2.0: hard_prompt, creative_writing).
    expected: questions of each file; null: as many as the longest has. max_missing: so many of them may be without two
        verdicts, and are left out.
    style: which features are controlled for: length, markdown, both or none. answers: for those, model to file of
        answers, the baseline's among them. baseline: the name of that one.
    """

    judgments: Any = field(default_factory=list)
    strong: int = 3
    category: str = ""
    expected: int | None = None
    max_missing: int = 0
    style: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict, metadata={"example": "{mine: FILE}"})
    baseline: str = ""

    uses: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[frozenset[str]] = frozenset({"resamples", "seed"})
    units: ClassVar[Mapping[str, str]] = {
        "win_rate": "%",
        "style_controlled_win_rate": "%",
    }

    def __post_init__(self) -> None:
        paths = self.judgments.values() if isinstance(self.judgments, Mapping) else self.judgments
        if isinstance(paths, str) or not all(isinstance(path, str) for path in paths):
            raise ValueError("judgments must be a list of files, or names with a file each, such as {mine: a.jsonl}")
        if self.strong < 1:
            raise ValueError(f"strong must be 1 or more, not {self.strong}")
        if self.expected is not None and self.expected < 1:
            raise ValueError(f"expected must be 1 or more, or null, not {self.expected}")
        if self.max_missing < 0:
            raise ValueError(f"max_missing must be 0 or more, not {self.max_missing}")
        unknown = [name for name in self.style if name not in _STYLES]
        if unknown or len(set(self.style)) < len(self.style):
            raise ValueError(f"style must be of length and markdown, each once, not {self.style}")
        if self.style and self.baseline not in self.answers:
            raise ValueError("style needs answers, and baseline must be the name of one of them")
        if not self.style and (self.answers or self.baseline):
            raise ValueError("answers and baseline have no effect without style, such as [length, markdown]")

    @property
    def files(self) -> Mapping[str, str]:
        """All files that are read."""
        return {f"judgments {name}": path for name, path in self._named()} | {
            f"answers {name}": path for name, path in self.answers.items()
        }

    def check(self, settings: EvalSettings) -> None:
        """Raises: UserError where there is nothing to read."""
        if not self.judgments:
            raise UserError("measure.judgments: there is no file to read", "measure.judgments=[MODEL.jsonl]")

    def __call__(self, place: EvalPlace) -> Measured:
        """Reads files and fits. Raises: UserError for a file that is not as expected, by row."""
        import numpy as np

        from prefopt.evaluate.bradley_terry import bootstrap

        models = self._models()
        left_out = self._check_counts(models)
        kept = {name: [j for j in judgments if j.games] for name, judgments in models.items()}
        battles, groups, notes = self._battles(kept)
        plain = battles.taken(np.arange(len(battles.outcome)))
        plain = type(plain)(plain.first, plain.second, plain.outcome, plain.weight, plain.features[:, :0])
        how = (len(kept) + 1, len(kept), place.settings.resamples, place.settings.seed)
        figures: dict[str, Figure] = {}
        table = [{"model": name, "questions": len(rows)} for name, rows in kept.items()]
        for key, these in [("win_rate", plain)] + ([("style_controlled_win_rate", battles)] if self.style else []):
            whole, fits = bootstrap(these, groups, *how)
            for number, (name, rows) in enumerate(kept.items()):
                rates = [100 / (1 + np.exp(-fit.players[number])) for fit in fits]
                low, high = np.percentile(rates, [2.5, 97.5])
                value = float(100 / (1 + np.exp(-whole.players[number])))
                figures[f"{name}/{key}"] = Figure(value, float(low), float(high), len(rows))
                table[number][key] = value
                table[number][key.replace("win_rate", "strength")] = float(whole.players[number])
            names = self._feature_names() if key != "win_rate" else []
            for number, feature in enumerate(names):
                low, high = np.percentile([fit.style[number] for fit in fits], [2.5, 97.5])
                figures[f"style/{feature}"] = Figure(
                    float(whole.style[number]), float(low), float(high), len(battles.outcome)
                )
        rank = "style_controlled_win_rate" if self.style else "win_rate"
        return Measured(
            figures,
            {"models": sorted(table, key=lambda row: -float(row[rank]))},
            [_row(name, judgment) for name, rows in models.items() for judgment in rows],
            {"no verdict in one of two games": left_out} if left_out else {},
            notes,
        )

    def _named(self) -> list[tuple[str, str]]:
        if isinstance(self.judgments, Mapping):
            return list(self.judgments.items())
        return [(path, path) for path in self.judgments]

    def _models(self) -> dict[str, list[Judgment]]:
        from prefopt.evaluate.judgment_files import read_judgments

        models: dict[str, list[Judgment]] = {}
        for given, path in self._named():
            told, judgments = read_judgments(Path(path).expanduser())
            name = given if isinstance(self.judgments, Mapping) else told
            if name in models:
                raise UserError(f"measure.judgments: two files of {name!r}", "give names: {one: PATH, other: PATH}")
            categories = {j.category for j in judgments}
            if self.category and self.category not in categories:
                raise UserError(
                    f"measure.category: {path} has no row of {self.category!r}",
                    f"it has: {', '.join(sorted(categories - {''})) or 'no categories'}",
                )
            models[name] = [j for j in judgments if not self.category or j.category == self.category]
        return models

    def _check_counts(self, models: Mapping[str, Sequence[Judgment]]) -> int:
        """How many questions are left out, of all models. Raises: UserError where they are too many."""
        expected = self.expected or max(len(rows) for rows in models.values())
        total = 0
        for name, rows in models.items():
            if len(rows) > expected:
                raise UserError(f"measure.judgments: {name} has {len(rows)} questions, {expected} are expected")
            missing = expected - sum(bool(row.games) for row in rows)
            if missing > self.max_missing or missing == expected:
                first = next((row.where for row in rows if not row.games), "")
                raise UserError(
                    f"measure.judgments: {name}: {missing} of {expected} questions have no two verdicts"
                    + (f"; the first is {first}" if first else f"; the file has {len(rows)}"),
                    f"have them judged, or measure.max_missing={missing}" if missing < expected else "",
                )
            total += missing
        return total

    def _battles(self, models: Mapping[str, Sequence[Judgment]]) -> tuple[Comparison, Any, tuple[str, ...]]:
        """All games, the question of each, and notes. The baseline is the last player."""
        import numpy as np

        from prefopt.evaluate.bradley_terry import Comparison

        uids = {uid: n for n, uid in enumerate(dict.fromkeys(j.uid for rows in models.values() for j in rows))}
        styles, notes = self._styles(models)
        first, outcome, weight, groups, rows = [], [], [], [], []
        for number, (name, judgments) in enumerate(models.items()):
            for judgment in judgments:
                for gets, is_strong in judgment.games:
                    first.append(number)
                    outcome.append(gets)
                    weight.append(float(self.strong if is_strong else 1))
                    groups.append(uids[judgment.uid])
                    rows.append(styles[name, judgment.uid] if styles else [])
        matrix, weights = np.array(rows, dtype=np.float64).reshape(len(rows), -1), np.array(weight)
        if matrix.shape[1]:
            mean = np.average(matrix, axis=0, weights=weights)
            variance = weights @ (matrix - mean) ** 2 / (weights.sum() - 1)
            for feature, spread in zip(self._feature_names(), variance):
                if spread == 0:
                    raise UserError(f"measure.style: {feature} is the same in every game, nothing can be told of it")
            matrix = (matrix - mean) / np.sqrt(variance)
        battles = Comparison(np.array(first), np.full(len(first), len(models)), np.array(outcome), weights, matrix)
        return battles, np.array(groups), notes

    def _styles(
        self, models: Mapping[str, Sequence[Judgment]]
    ) -> tuple[dict[tuple[str, str], list[float]], tuple[str, ...]]:
        if not self.style:
            return {}, ()
        from prefopt.evaluate.style_features import features, read_styles

        absent = [name for name in models if name not in self.answers]
        if absent:
            raise UserError(f"measure.answers: style needs the answers of {absent[0]}", "answers={MODEL: FILE, ...}")
        known, from_metadata = read_styles(self.answers)
        found = {}
        for name, judgments in models.items():
            for judgment in judgments:
                for one in (name, self.baseline):
                    if judgment.uid not in known[one]:
                        raise UserError(
                            f"measure.answers.{one}: no answer to question {judgment.uid}, judged at {judgment.where}",
                            "take the answers that were judged",
                        )
                found[name, judgment.uid] = features(
                    known[name][judgment.uid], known[self.baseline][judgment.uid], self.style
                )
        note = "Style is counted in the answers' text, a token for 4 characters: not every file has metadata."
        return found, () if from_metadata else (note,)

    def _feature_names(self) -> list[str]:
        from prefopt.evaluate.style_features import FEATURES

        return [feature for name in _STYLES if name in self.style for feature in FEATURES[name]]


def _row(name: str, judgment: Judgment) -> dict[str, Any]:
    return {
        "id": judgment.uid,
        "model": name,
        "category": judgment.category,
        "games": [gets for gets, _ in judgment.games],
        "strong": [is_strong for _, is_strong in judgment.games],
    }
