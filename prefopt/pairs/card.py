"""The card of a data set that was built: how it was made and what it is like, as Markdown (card.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefopt.data.files import digest_of
from prefopt.masking import masked
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.statistics import cut_sentence


@dataclass(frozen=True)
class DataFile:
    """A file that the card vouches for. sha256: of its bytes, hexadecimal. note: what it is."""

    path: str
    sha256: str
    note: str = ""


@dataclass(frozen=True)
class About:
    """What the card says besides the statistics.

    settings: of the command. versions: of Python and packages, by name. files: those read and those written.
    evaluations: what was looked through for contamination: {path, rows, unreadable}, as `Evaluation.as_json` gives.
    """

    settings: PairsSettings
    versions: Mapping[str, str]
    files: Sequence[DataFile] = field(default=())
    evaluations: Sequence[Mapping[str, Any]] = field(default=())


def data_file(path: Path, note: str = "", shown: str | None = None) -> DataFile:
    """A file with its digest. shown: its name on the card. Raises: RunError where it cannot be read."""
    return DataFile(shown or path.name, digest_of(path), note)


def card(about: About, statistics: Mapping[str, Any]) -> str:
    """The card. statistics: as `Statistics.as_dict` gives. Secrets are masked."""
    sections = [_title(about, statistics), *_made(about), *_counts(statistics), *_contamination(about), *_files(about)]
    return masked("\n\n".join(sections) + "\n")


def _title(about: About, statistics: Mapping[str, Any]) -> str:
    rows, prompts = statistics["rows"]["count"], statistics["prompts"]["with_candidates"]
    return f"# {about.settings.name}\n\n{rows} rows from {prompts} prompts with candidates, built by `prefopt pairs`."


def _made(about: About) -> Iterator[str]:
    settings = about.settings
    yield "## How it was made"
    yield _table(
        ("", ""),
        [
            ("prompts", settings.prompts),
            ("policies", ", ".join(settings.policies) or "none"),
            ("generate", _stage(settings.generate)),
            ("score", _stage(settings.score)),
            *((f"objective {number}", _stage(margin)) for number, margin in enumerate(settings.margins, 1)),
            ("select", _stage(settings.select)),
            *((key, getattr(settings, key)) for key in ("reward", "reference") if getattr(settings, key)),
            ("chat template", settings.chat_template or "the tokenizer's own"),
            ("seed", settings.seed),
            ("arithmetic", settings.dtype),
            ("versions", ", ".join(f"{name} {version}" for name, version in about.versions.items())),
        ],
    )


def _counts(statistics: Mapping[str, Any]) -> Iterator[str]:
    candidates, rows = statistics["candidates"], statistics["rows"]
    bounds = candidates["mean_score_95"]
    yield "## What it is like"
    spreads = {
        "candidates of a prompt": candidates["per_prompt"],
        "score of a candidate": candidates["scores"],
        "gap in score of a row": rows["score_gap"],
        **{f"words of {column}": lengths for column, lengths in rows["words"].items()},
    }
    names = ("mean", "min", "q1", "median", "q3", "max")
    yield _table(
        ("", *names), [(what, *(_number(s[name]) for name in names)) for what, s in spreads.items() if s is not None]
    )
    lines = []
    if bounds is not None:
        low, high = map(_number, bounds)
        lines.append(
            f"- mean score of a candidate: {_number(candidates['scores']['mean'])}, 95 % interval {low} to {high}"
            f" (bootstrap over prompts). Means of two policies compare where prompts, score and `generate` are the same"
        )
    if cut := cut_sentence(statistics):
        lines.append(f"- {cut}")
    lines += [
        f"- candidates: {candidates['count']}, of which {candidates['duplicates']} repeat another of their prompt"
        f" ({candidates['prompts_with_duplicates']} prompts)",
        f"- ties: {_percent(candidates['tied_share'])} of all two candidates of a prompt have equal scores;"
        f" all scores are equal of {candidates['prompts_all_tied']} prompts",
    ]
    if "longer_chosen_share" in rows:
        lines.append(
            f"- chosen is the longer in {_percent(rows['longer_chosen_share'])} of the pairs whose lengths in words"
            f" differ; {rows['equally_long']} are equally long"
        )
    yield "\n".join(lines)
    for what, counts in (("prompts", statistics["prompts"]["left_out"]), ("candidates", candidates["left_out"])):
        if counts:
            yield f"## Left out: {what}"
            yield _table(("reason", what), list(counts.items()))


def _contamination(about: About) -> Iterator[str]:
    yield "## Contamination"
    if not about.evaluations:
        yield "Not looked for: `avoid` names no evaluation."
        return
    yield "Prompts equal to one of these, or sharing 13 words in a row with one, were left out."
    rows = [(one["path"], one["rows"], one["unreadable"]) for one in about.evaluations]
    yield _table(("evaluation", "rows", "of which unreadable"), rows)


def _files(about: About) -> Iterator[str]:
    if about.files:
        yield "## Files"
        yield _table(("file", "what", "sha256"), [(file.path, file.note, f"`{file.sha256}`") for file in about.files])


def _stage(settings: Mapping[str, Any]) -> str:
    """A stage in one line: "sample (n=8, temperature=1.0)"."""
    values = ", ".join(f"{key}={value}" for key, value in settings.items() if key != "name")
    name = settings.get("name", "none")
    return f"{name} ({values})" if values else str(name)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    """On one line, and without a bar that would end the cell."""
    return " ".join(str(value).replace("|", "\\|").split())


def _number(value: float) -> str:
    return f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"
