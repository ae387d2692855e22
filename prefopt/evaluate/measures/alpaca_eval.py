"""AlpacaEval 2's figures from its annotation files: win rates, and those at equal length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prefopt.errors import UserError
from prefopt.evaluate.measure import EvalPlace, Figure, Measured
from prefopt.evaluate.settings import EvalSettings

if TYPE_CHECKING:
    from prefopt.evaluate.annotation_files import Annotated, Annotation
    from prefopt.evaluate.length_controlled import Controlled

__all__ = ["AlpacaEval"]

_FEWEST_MODELS = 3


@dataclass(frozen=True)
class AlpacaEval:
    """Win rates of models against a baseline, from what a judge has said (Li et al. 2023; Dubois et al. 2024).

    win_rate: 100 * mean of (preference - 1), preference from 1 to 2. Its interval is 1.96 standard errors of the mean,
    as the leaderboard has it. discrete_win_rate: ties count half, other preferences as won or lost.
    length_controlled_win_rate: what the win rate would be at equal length; the equation, and how the three choices of
    `difficulty` fit it, are in prefopt/evaluate/length_controlled.py. Its interval is that of the mean of predictions
    (`lc_standard_error` of the leaderboard), which leaves out that the fit itself is uncertain.

    annotations: a list of files, or name to file; a list takes the names from the files. expected: rows of each file.
    allow_missing: average over what there is where rows or preferences are missing; how many is counted and noted. The
        leaderboard does so: its n_total of alpaca-7b_verbose is 802.
    difficulty: joint: fitted from the models given, three or more. none: no such term. Else the path of df_gamed.csv,
        from the data set tatsu-lab/alpaca_eval on the hub, which gives the published figures.
    """

    annotations: Any = field(default_factory=list)
    expected: int = 805
    allow_missing: bool = False
    difficulty: str = "joint"

    uses: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[frozenset[str]] = frozenset({"seed"})
    units: ClassVar[Mapping[str, str]] = {
        "win_rate": "%",
        "discrete_win_rate": "%",
        "length_controlled_win_rate": "%",
        "average_length": "characters",
    }

    def __post_init__(self) -> None:
        paths = self.annotations.values() if isinstance(self.annotations, Mapping) else self.annotations
        if isinstance(paths, str) or not all(isinstance(path, str) for path in paths):
            raise ValueError("annotations must be a list of files, or names with a file each, such as {mine: a.json}")
        if self.expected < 2:
            raise ValueError(f"expected must be 2 or more, not {self.expected}")
        if not self.difficulty:
            raise ValueError("difficulty must be joint, none, or the path of df_gamed.csv")
        if self.difficulty == "joint" and 0 < len(self.annotations) < _FEWEST_MODELS:
            raise ValueError(
                f"difficulty=joint needs the files of {_FEWEST_MODELS} models or more, there are"
                f" {len(self.annotations)}: difficulty=none, or the path of df_gamed.csv"
            )

    @property
    def files(self) -> Mapping[str, str]:
        """All files that are read."""
        given = self.annotations
        named = dict(given) if isinstance(given, Mapping) else {path: path for path in given}
        return named if self.difficulty in ("joint", "none") else {**named, "difficulty": self.difficulty}

    def check(self, settings: EvalSettings) -> None:
        """Raises: UserError where there is nothing to read."""
        if not self.annotations:
            raise UserError("measure.annotations: there is no file to read", "measure.annotations=[annotations.json]")

    def __call__(self, place: EvalPlace) -> Measured:
        """Reads files and fits. Raises: UserError for a file that is not as expected, by row."""
        from prefopt.evaluate.annotation_files import check_count

        files = self._read()
        order = list(dict.fromkeys(row.instruction for _, file in files for row in file.rows))
        left_out, notes = 0, []
        judged: dict[str, list[Annotation]] = {}
        for name, file in files:
            missing = check_count(name, file.rows, self.expected, self.allow_missing, order)
            if missing:
                notes.append(f"{name}: {missing} of {self.expected} instructions have no preference and are left out.")
            left_out += missing
            judged[name] = [row for row in file.rows if row.preference is not None]
            if not judged[name]:
                raise UserError(f"measure.annotations.{name}: no row has a preference", "have them judged first")
        notes += self._degenerate(judged)
        controlled, said = self._controlled(judged, order, place.settings.seed)
        measured = [self._figures(name, rows, controlled[name]) for name, rows in judged.items()]
        table = [{"model": name, **row} for (name, rows), (_, row) in zip(judged.items(), measured)]
        return Measured(
            {f"{name}/{key}": one for name, (figures, _) in zip(judged, measured) for key, one in figures.items()},
            {"models": sorted(table, key=lambda row: -row["length_controlled_win_rate"])},
            [row for name, rows in judged.items() for row in _rows(name, rows, controlled[name])],
            {"no preference": left_out} if left_out else {},
            (*notes, *said),
        )

    def _read(self) -> list[tuple[str, Annotated]]:
        from prefopt.evaluate.annotation_files import read_annotations

        given = self.annotations
        named = given.items() if isinstance(given, Mapping) else [("", path) for path in given]
        files: list[tuple[str, Annotated]] = []
        for name, path in named:
            file = read_annotations(Path(path).expanduser())
            name = name or file.generator or Path(path).name
            if name in (known for known, _ in files):
                raise UserError(f"measure.annotations: two files of {name!r}", "give names: {one: PATH, other: PATH}")
            if files and file.baseline != files[0][1].baseline:
                raise UserError(
                    f"measure.annotations.{name}: its baseline is {file.baseline!r}, that of {files[0][0]} is"
                    f" {files[0][1].baseline!r}",
                    "compare models that met the same baseline",
                )
            files.append((name, file))
        return files

    def _degenerate(self, judged: Mapping[str, Sequence[Annotation]]) -> list[str]:
        """A note for each model that gives one answer to all: it belongs in the table, and must not be believed."""
        from prefopt.evaluate.degenerate import check_answers

        return [
            note
            for name, rows in judged.items()
            for note in check_answers([row.response for row in rows], name, allow=True)[1]
        ]

    def _controlled(
        self, judged: Mapping[str, Sequence[Annotation]], order: Sequence[str], seed: int
    ) -> tuple[dict[str, Controlled], tuple[str, ...]]:
        import numpy as np

        from prefopt.evaluate import length_controlled as glm

        place_of = {words: place for place, words in enumerate(order)}
        compared = {
            name: glm.Comparisons(
                np.array([row.preference for row in rows]),
                glm.length_term([row.baseline_length for row in rows], [len(row.response) for row in rows]),
                np.array([place_of[row.instruction] for row in rows]),
            )
            for name, rows in judged.items()
        }
        if self.difficulty == "none":
            said = (
                "Length-controlled win rates take each model alone, without the difficulty of instructions"
                " (difficulty=none). Of a model that hardly ever wins they say little: of the nine models that were"
                " tried one was 14 points above its published rate."
            )
            return {name: glm.plain_fit(rows) for name, rows in compared.items()}, (said,)
        if self.difficulty == "joint":
            joint = glm.joint_fit(list(compared.values()), len(order), seed)
            said = (
                f"Length-controlled win rates take the difficulty of instructions from these {len(compared)} models"
                " (difficulty=joint): the published ones take it from a file on the hub and differ, on the nine models"
                " that were tried by up to 2.3 points."
            )
            return {name: glm.anchored_fit(rows, joint) for name, rows in compared.items()}, (said,)
        from prefopt.evaluate.gamed_file import read_gamed

        if len(order) != self.expected:
            raise UserError(
                f"measure.difficulty: {self.difficulty} numbers {self.expected} instructions, the files have"
                f" {len(order)}",
                "take the annotations of one set of instructions",
            )
        whole = next((rows for rows in judged.values() if len(rows) == self.expected), None)
        if whole is None:
            raise UserError(
                "measure.difficulty: the file goes by the place of an instruction, and no annotation file is whole",
                "add the whole file of another model",
            )
        gamed = read_gamed(Path(self.difficulty).expanduser(), self.expected)
        place_of = {row.instruction: place for place, row in enumerate(whole)}
        difficulty = np.array([gamed.difficulty[place_of[words]] for words in order])
        return {name: glm.published_fit(rows, difficulty, gamed.rows) for name, rows in compared.items()}, ()

    @staticmethod
    def _figures(
        name: str, rows: Sequence[Annotation], controlled: Controlled
    ) -> tuple[dict[str, Figure], dict[str, Any]]:
        import numpy as np

        preference = np.array([row.preference for row in rows])
        count = len(rows)
        rate, error = 100 * float(preference.mean()), 100 * float(preference.std(ddof=1) / np.sqrt(count))
        wins, ties = int((preference > 0.5).sum()), int((preference == 0.5).sum())
        discrete = 100 * (wins + ties / 2) / count
        equal, its_error = 100 * controlled.rate, 100 * controlled.standard_error
        length = sum(len(row.response) for row in rows) / count
        figures = {
            "win_rate": Figure(rate, rate - 1.96 * error, rate + 1.96 * error, count),
            "discrete_win_rate": Figure(discrete, count=count),
            "length_controlled_win_rate": Figure(equal, equal - 1.96 * its_error, equal + 1.96 * its_error, count),
            "average_length": Figure(length, count=count),
        }
        return figures, {
            "win_rate": rate,
            "standard_error": error,
            "length_controlled_win_rate": equal,
            "lc_standard_error": its_error,
            "wins": wins,
            "losses": count - wins - ties,
            "ties": ties,
            "count": count,
            "discrete_win_rate": discrete,
            "average_length": length,
            "length_coefficient": controlled.phi,
            "difficulty_coefficient": controlled.psi,
            "constant": controlled.theta,
        }


def _rows(name: str, rows: Sequence[Annotation], controlled: Controlled) -> list[dict[str, Any]]:
    return [
        {
            "id": row.where,
            "model": name,
            "dataset": row.dataset,
            "preference": row.preference,
            "length_controlled_preference": float(predicted),
            "length": len(row.response),
            "baseline_length": row.baseline_length,
        }
        for row, predicted in zip(rows, controlled.predictions, strict=True)
    ]
