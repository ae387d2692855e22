"""Two runs side by side: what differs in how they were made, and the first step at which their numbers part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prefopt.manifest import differences
from prefopt.report.runs import Run
from prefopt.train.timings import TIMINGS

TOLERANCE = 1e-6
"""A relative difference above it is more than the order of summation in float32 explains at the first steps."""

FIRST = ("loss", "grad_norm", "lr")
"""Curves that are shown first; lr is set and not measured, and says whether the schedules were the same."""


_COUNTS = ("path", "read", "kept", "pairs", "responses", "dropped", "truncated")
"""What of a source's report tells whether two runs were given the same."""


@dataclass(frozen=True)
class Differing:
    """Something that both could have had alike. origins: where each came from, "" where that is not known."""

    key: str
    values: tuple[Any, Any]
    origins: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Parting:
    """Where two curves part: the step, both values, and |a - b| / max(|a|, |b|)."""

    step: int
    values: tuple[float, float]
    relative: float


@dataclass(frozen=True)
class Curves:
    """A metric that both runs log.

    shared: steps that both have. only: steps that one of them alone has. first: the first step with another value, bit
    for bit; None where all are equal. beyond: the first that differs by more than `TOLERANCE` relatively.
    """

    name: str
    shared: int
    only: tuple[int, int]
    first: Parting | None
    beyond: Parting | None


@dataclass(frozen=True)
class Comparison:
    """Everything in which two runs differ. settings, versions, data: what differs. curves: all that both have."""

    labels: tuple[str, str]
    folders: tuple[str, str]
    settings: Sequence[Differing]
    versions: Sequence[Differing]
    data: Sequence[Differing]
    curves: Sequence[Curves]
    only: tuple[Sequence[str], Sequence[str]]
    notes: Sequence[str]

    @property
    def is_equal(self) -> bool:
        """Whether every curve that both have is equal bit for bit, and there is one."""
        return bool(self.curves) and all(curve.first is None and curve.only == (0, 0) for curve in self.curves)

    def as_json(self) -> dict[str, Any]:
        """The comparison as plain values; equal: whether all curves are, bit for bit."""
        return {**asdict(self), "equal": self.is_equal}


def compare(a: Run, b: Run) -> Comparison:
    """Settings, versions, data and curves of two runs, aligned by key and by step. Timings are left out."""
    names = [name for name in a.curves if name in b.curves and name not in TIMINGS]
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    only = (_not_in(a, b), _not_in(b, a))
    notes = [f"{run.called}: {what} is not known" for run in (a, b) for what in _unknown(run)]
    notes += [f"{run.called}: {change}" for run in (a, b) for change in run.changes]
    return Comparison(
        labels=(a.called, b.called),
        folders=(str(a.folder or ""), str(b.folder or "")),
        settings=[
            Differing(of.key, of.values, (_origin(a, of.key), _origin(b, of.key)))
            for of in _differing(a.settings, b.settings)
            if of.key != "dir"
        ],
        versions=_differing(_versions(a), _versions(b)),
        data=_differing(_data(a), _data(b)),
        curves=[align(name, a.curves[name], b.curves[name]) for name in names],
        only=only,
        notes=notes,
    )


def align(name: str, a: Sequence[tuple[int, float]], b: Sequence[tuple[int, float]]) -> Curves:
    """Two curves by their steps. A value that was not finite is in no curve, so that its step is one of the other's."""
    ours, theirs = dict(a), dict(b)
    shared = sorted(ours.keys() & theirs.keys())
    first = beyond = None
    for step in shared:
        x, y = ours[step], theirs[step]
        if x == y:
            continue
        parting = Parting(step, (x, y), abs(x - y) / max(abs(x), abs(y)))
        first = first or parting
        if parting.relative > TOLERANCE:
            beyond = parting
            break
    return Curves(name, len(shared), (len(ours) - len(shared), len(theirs) - len(shared)), first, beyond)


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Differing]:
    return [Differing(of.key, (of.old, of.new)) for of in differences(a, b)]


def _not_in(run: Run, other: Run) -> list[str]:
    return [name for name in run.curves if name not in other.curves and name not in TIMINGS]


def _unknown(run: Run) -> Iterator[str]:
    if not run.manifest or not run.manifest.get("starts"):
        yield "with which versions it ran"
    if run.data_report is None:
        yield "what became of its data"
    if not run.curves:
        yield "any number of its training"


def _last_start(run: Run) -> Mapping[str, Any]:
    starts = (run.manifest or {}).get("starts") or [{}]
    return starts[-1]


def _versions(run: Run) -> dict[str, Any]:
    """Packages, Python, platform, engine, commit and code of the methods, of the last start."""
    start = _last_start(run)
    code = (run.manifest or {}).get("loss_code", {})
    return {
        **start.get("packages", {}),
        **{key: start[key] for key in ("python", "platform") if key in start},
        "git": start.get("git"),
        "world": start.get("world"),
        "code of loss": code,
    }


def _data(run: Run) -> dict[str, Any]:
    """Digests, template, and for every set and source what was read, kept and left out."""
    report = run.data_report
    if report is None:
        return {}
    tokenizer = report.get("tokenizer", {})
    found: dict[str, Any] = {
        "fingerprint": report.get("fingerprint"),
        "tokenizer": {key: tokenizer.get(key) for key in ("fingerprint", "chat_template_sha256")},
        "sets": report.get("sets", {}),
    }
    for place, source in enumerate(report.get("sources", [])):
        found[f"sources.{place}"] = {key: source.get(key) for key in _COUNTS}
    return found


def _origin(run: Run, key: str) -> str:
    """The word of the last start's command line that set a key, or the recipe that was named; "" where none did.

    A group's choice (loss=dpo) sets all keys of the group.
    """
    found = ""
    for word in _last_start(run).get("command", []):
        name, is_set, _ = str(word).lstrip("+").partition("=")
        if not is_set or word.startswith("--"):
            continue
        if key == name or key.startswith(f"{name}.") or (name == "recipe" and not found):
            found = str(word)
    return found
