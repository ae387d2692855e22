"""The README.md of a trained model: what it was made from, what was measured, and the command that makes it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt import __version__
from prefopt.settings import RunSettings


def model_card(
    run: RunSettings, folder: Path, before: dict[str, float], after: dict[str, float], num_steps: int
) -> str:
    """What was trained, how, on which rows, with which versions, and what was measured before and after.

    folder: of the run; its manifest.json and data_report.json are read. What they do not say is left out.
    """
    sources = ", ".join(s.path for s in run.data.train)
    manifest, report = _read(folder / "manifest.json"), _read(folder / "data_report.json")
    starts: Sequence[Mapping[str, Any]] = manifest.get("starts", [])
    methods = _earlier_methods(starts)
    return f"""---
base_model: {run.model.path}
library_name: {"peft" if run.model.lora else "transformers"}
tags: [{", ".join(dict.fromkeys(["prefopt", *(name for name, _ in methods), run.loss["name"]]))}]
---

# {run.name}

Trained with prefopt {__version__}: {_trained_by(run, methods)} on {sources}.

- start: {run.model.path}{" with LoRA adapters" if run.model.lora else ""}{_held(run)}
- {num_steps} steps, batch size {run.train.batch_size}, seed {run.train.seed}
- {run.optim.name}, learning rate {run.optim.lr:g} ({run.optim.schedule})
{_settings(starts)}

## Held-out metrics

{_measured(before, after)}

## Data

{_data(report)}

## Once more

{_repeat(folder, starts)}

## Made with

{_versions(starts)}
"""


def _changes(starts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What later starts changed by `--allow-change`, in order."""
    return [change for start in starts for change in start.get("changes", [])]


def _earlier_methods(starts: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Methods that a later start replaced, and the last step of each."""
    return [
        (str(c["old"]), int(c["after_step"])) for c in _changes(starts) if c["key"] == "loss.name" and c["after_step"]
    ]


def _trained_by(run: RunSettings, methods: Sequence[tuple[str, int]]) -> str:
    """The method with its settings, behind those that the run began with."""
    settings = ", ".join(f"{k}={v}" for k, v in run.loss.items() if k != "name")
    last = f"{run.loss['name']} ({settings})"
    return ", then ".join([*(f"{name} up to step {step}" for name, step in methods), last])


def _settings(starts: Sequence[Mapping[str, Any]]) -> str:
    """Where the settings are, and what of them was another in the beginning."""
    where = "- the settings in full are in `run.yaml` of the run folder"
    if not (changes := _changes(starts)):
        return f"{where}; the folder alone repeats the run"
    lines = [f"{where}, as the last start had them; from `--allow-change`, earlier:"]
    lines += [f"  - up to step {c['after_step']} `{c['key']}` was {_brief(c['old'])}" for c in changes]
    return "\n".join(lines)


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _measured(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    rows = [(name, f"{before[name]:.4f}", f"{after[name]:.4f}") for name in sorted(after) if name in before]
    return _table(("metric", "before", "after"), rows) if rows else "No held-out set was given."


def _data(report: Mapping[str, Any]) -> str:
    """Rows of each source by what became of them, and the digests of what was trained on."""
    if not report:
        return "Nothing is recorded."
    rows = [
        (str(of["set"]), f"`{of['path']}`", str(of["read"]), str(of["kept"]), _reasons(of["dropped"]))
        for of in report["sources"]
    ]
    sets = [
        (name, str(of["rows"]), str(of["pairs"]), str(of["tokens"]), f"`{of['fingerprint'][:16]}`")
        for name, of in report["sets"].items()
    ]
    return "\n\n".join(
        [
            _table(("set", "source", "rows read", "kept", "left out"), rows),
            _table(("set", "rows", "pairs", "tokens", "sha256 of the encoded rows"), sets),
            f"All of it, with template and tokenizer: `{report['fingerprint']}`.",
        ]
    )


def _repeat(folder: Path, starts: Sequence[Mapping[str, Any]]) -> str:
    """The command of the first start, and the one that needs nothing but the run folder."""
    if not starts:
        return "Nothing is recorded."
    if changed := list(dict.fromkeys(change["key"] for change in _changes(starts))):
        # `prefopt train --repeat` refuses such a run for the same reason.
        return f"No command repeats this run: it went on with another {', '.join(changed)} after it had begun."
    first = starts[0]
    return (
        f"```\nprefopt train --repeat {shlex.quote(str(folder))}\n```\n\n"
        "gives the same numbers on the same machine, and refuses data that have changed since. The run was"
        f" begun in `{first['working_directory']}` by\n\n```\n{shlex.join(map(str, first['command']))}\n```"
    )


def _versions(starts: Sequence[Mapping[str, Any]]) -> str:
    """Packages and machine of the last start, which trained the last step."""
    if not starts:
        return "Nothing is recorded."
    last = starts[-1]
    packages = ", ".join(f"{name} {version}" for name, version in last["packages"].items())
    return "\n".join(f"- {line}" for line in (packages, *_place(last)))


def _place(start: Mapping[str, Any]) -> Iterator[str]:
    world = start["world"]
    ranks = world["num_processes"]
    yield f"Python {start['python']} on {start['platform']}"
    yield f"{ranks} {'process' if ranks == 1 else 'processes'} on {world['device']} ({world['engine']})"
    if git := start.get("git"):
        yield f"started in a git checkout at {git['commit']}{', with changes of its own' if git['dirty'] else ''}"


def _reasons(dropped: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{rows['count']} {reason}" for reason, rows in dropped.items()) or "0"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _read(file: Path) -> dict[str, Any]:
    """A record of the run folder; empty where it is not there, as under a start that prefopt's command did not make."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _held(run: RunSettings) -> str:
    base = run.model.base
    return "" if base == "plain" else f", trained over weights held in {base}: load them so, or the numbers are others"
