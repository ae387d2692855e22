"""Reward against likelihood, and likelihood against length: the analysis of SimPO's figure 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from prefopt.errors import UserError
from prefopt.evaluate.measure import EvalPlace, Measured

__all__ = ["Likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """Figures of pairs that `measure=preferences` has scored; no model is loaded.

    For every set in the rows (Meng et al. 2024, arXiv 2405.14734, section 4, figure 4):

        SET/rewards/accuracy                 share of pairs with r(chosen) > r(rejected); a tie counts half
        SET/mean_logps/accuracy              the same of log pi(y|x) / |y|; SET/logps/accuracy of the sum
        SET/mean_logps/agreement             share of pairs that reward and likelihood put in the same order, ties left
                                             out: the diagonal of the table SET/contingency/mean_logps; and of sums
        SET/mean_logps/length_spearman/both  rank correlation of log pi(y|x) / |y| with |y|, tokens, over all
                                             responses; chosen and rejected: over those alone; and of sums

    Intervals are bootstraps over pairs. p-values stand in the table SET/correlations.

    rows: rows.jsonl of such an evaluation, or its folder. Must be given.
    against: the same of another model on the same pairs, such as DPO's beside SimPO's; pairs are matched by set and id,
        SET/against/... has its figures and the table SET/side_by_side the differences, with paired intervals.
    runs: one or two run folders whose time and memory are put beside (SimPO's figure 4 has them): that of `rows`,
        then that of `against`. Two must have run alone and on equal machines to be compared; the note says on what.
    """

    rows: str = ""
    against: str | None = None
    runs: list[str] = field(default_factory=list)
    uses: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[frozenset[str]] = frozenset({"resamples", "seed"})
    units: ClassVar[Mapping[str, str]] = {
        "accuracy": "share",
        "agreement": "share",
    }

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("rows must be given: the rows.jsonl of an evaluation by measure=preferences")
        if self.against == "":
            raise ValueError("against must be a file, a folder or null, not empty")
        if len(self.runs) > 2:
            raise ValueError(f"runs must be one or two run folders, not {len(self.runs)}")

    @property
    def files(self) -> Mapping[str, str]:
        """The rows, and what the costs of runs are read from."""
        rows = {"measure.rows": str(_path(self.rows))}
        if self.against is not None:
            rows["measure.against"] = str(_path(self.against))
        names = ("result.json", "metrics.jsonl")
        costs = {f"measure.runs.{i} {name}": f"{run}/{name}" for i, run in enumerate(self.runs) for name in names}
        return rows | costs

    def __call__(self, place: EvalPlace) -> Measured:
        """Measure. Raises: UserError for a file that is not there or holds something else."""
        from prefopt.evaluate.likelihood_sets import measure_sets
        from prefopt.evaluate.run_cost import RunCost, read_cost
        from prefopt.evaluate.scored_rows import read_scored_pairs

        costs: list[RunCost] = [read_cost(Path(run).expanduser()) for run in self.runs]
        pairs = read_scored_pairs(_file(self.rows, "rows"))
        against = None if self.against is None else read_scored_pairs(_file(self.against, "against"))
        return measure_sets(pairs, against, costs, place.settings.resamples, place.settings.seed)


def _path(path: str) -> Path:
    """The rows file that a setting means."""
    given = Path(path).expanduser()
    return given / "rows.jsonl" if given.is_dir() else given


def _file(path: str, key: str) -> Path:
    """The same, where it is there."""
    file = _path(path)
    if not file.is_file():
        raise UserError(f"measure.{key}: there is no file {file}", f"working directory: {Path.cwd()}")
    return file
