"""Whether runs measured a held-out set of one name on the same rows: only then do its metrics compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prefopt.report.curves import EVALUATION
from prefopt.report.runs import Run
from prefopt.report.varied import ends_of

_NAMED = 3
"""Groups of runs, and runs of a group, that a note names."""


class Rows(NamedTuple):
    """What a run's data report says of a set. content: digest of prompts and best responses, "" of a run before it was
    kept. rows, pairs, responses, tokens: how many. encoder: digests of tokenizer and template. sources: the files."""

    content: str
    rows: int
    pairs: int
    responses: int
    tokens: int
    encoder: tuple[str, str]
    sources: tuple[str, ...]

    def are_those_of(self, other: Rows) -> bool:
        """Whether nothing says that the rows are others.

        Pairs are compared where both methods have them. Other rejected responses are other tokens, which are compared
        where both are of one tokenizer and template, and as many responses were encoded.
        """
        if self.rows != other.rows or (self.content and other.content and self.content != other.content):
            return False
        if self.pairs and other.pairs and self.pairs != other.pairs:
            return False
        are_alike = self.encoder == other.encoder and self.responses == other.responses
        return not are_alike or self.tokens == other.tokens


def set_of(metric: str) -> str:
    """The held-out set that a metric is of: heldout of eval/heldout/loss; "" of one of none."""
    return metric.split("/")[1] if metric.startswith(EVALUATION) and metric.count("/") > 1 else ""


def differing_sets(runs: Sequence[Run]) -> dict[str, str]:
    """The sets that some runs measured on other rows than the rest, each with what the rows were.

    Runs whose folder does not say count as the first ones: "8 rows of a.jsonl (dpo, simpo), 4 rows of b.jsonl (ipo)".
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(of for run in runs for metric in run.metrics if (of := set_of(metric))):
        groups: list[tuple[Rows, list[Run]]] = []
        for run in runs:
            rows = _rows(run, name) if any(set_of(metric) == name for metric in run.metrics) else None
            if rows is None:
                continue
            same = next((of for known, of in groups if known.are_those_of(rows)), None)
            if same is None:
                groups.append((rows, [run]))
            else:
                same.append(run)
        if len(groups) > 1:
            more = f", and {len(groups) - _NAMED} more" if len(groups) > _NAMED else ""
            paths = list(dict.fromkeys(path for rows, _ in groups for path in rows.sources))
            short = dict(zip(paths, ends_of([path.split("/") for path in paths])))
            found[name] = ", ".join(_said(rows, of, short) for rows, of in groups[:_NAMED]) + more
    return found


def _rows(run: Run, name: str) -> Rows | None:
    """None where the folder does not say."""
    report = run.data_report or {}
    about = _mapping(_mapping(report.get("sets")).get(name))
    if not about:
        return None
    tokenizer = _mapping(report.get("tokenizer"))
    sources = [source for source in report.get("sources") or () if isinstance(source, Mapping)]
    own = [source for source in sources if source.get("set") == name]
    own = own or [source for source in sources if source.get("set") == "train"]  # held out of these
    paths = tuple(dict.fromkeys(str(source.get("path", "")) for source in own))
    rows, pairs, responses, tokens = (int(about.get(key) or 0) for key in ("rows", "pairs", "responses", "tokens"))
    encoder = str(tokenizer.get("fingerprint")), str(tokenizer.get("chat_template_sha256"))
    return Rows(str(about.get("content") or ""), rows, pairs, responses, tokens, encoder, paths)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _said(rows: Rows, runs: Sequence[Run], short: Mapping[str, str]) -> str:
    names = ", ".join(run.called for run in runs[:_NAMED])
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    files = ", ".join(short[path] for path in rows.sources)
    return f"{rows.rows} {'row' if rows.rows == 1 else 'rows'} of {files} ({names}{more})"
