"""What a finished demo run changed: measures before and after training, and a few answers side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefopt.console import print_table
from prefopt.demo.manners import judge, kind_of
from prefopt.errors import UserError

NUM_SHOWN = 5
_ABSENT = "-"
_CAPTION = (
    "Win rate: share of sampled answers whose utility (2 right + 1 polite - 1 rude) beats that of the row's chosen"
    " response, ties one half; 50 % is as good as those. Held-out rows ask in a wording that no training pair uses."
)


class Sample(NamedTuple):
    """A held-out row and what the model answered before and after training."""

    prompt: str
    before: str
    after: str
    chosen: str


class Measures(NamedTuple):
    """Shares, from 0 to 1, over the answers of one model; None where no answer can be judged.

    win_rate: utility against the row's chosen response, ties one half. right: over prompts that have a right answer.
    """

    win_rate: float | None
    polite: float | None
    rude: float | None
    right: float | None


def print_report(run_dir: Path, console: Console) -> None:
    """Print the table and the answers of the run in `run_dir`, from its result.json and samples.jsonl.

    Raises: UserError where result.json is missing or either file is damaged.
    """
    result = _read_result(run_dir / "result.json")
    samples = read_samples(run_dir / "samples.jsonl")
    before = measure([(s.prompt, s.before, s.chosen) for s in samples])
    after = measure([(s.prompt, s.after, s.chosen) for s in samples])

    table = Table(title=f"Before and after training ({result['seconds']:.0f} s)")
    table.add_column("held-out rows")
    table.add_column("before", justify="right", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    for label, key, show in (
        ("reward accuracy", "eval/heldout/rewards/accuracy", _percent),
        ("reward margin", "eval/heldout/rewards/margin", _number),
    ):
        _add_row(table, label, [_shown(result[when].get(key), show) for when in ("before", "after")])
    for label, field in (("win rate", "win_rate"), ("polite", "polite"), ("rude", "rude"), ("fact right", "right")):
        _add_row(table, label, [_shown(measures._asdict()[field], _percent) for measures in (before, after)])
    if not table.row_count:
        console.print("Nothing to compare: there are no held-out pairs, and no answers were sampled (sample.count=0).")
        return
    print_table(console, table)
    if samples:
        console.print(_CAPTION, style="dim", highlight=False)
        _print_answers(samples, console)


def measure(answers: list[tuple[str, str, str]]) -> Measures:
    """The measures of one model's answers: (prompt, answer, the row's chosen response) each."""
    if not answers:
        return Measures(None, None, None, None)
    judged = [judge(prompt, answer) for prompt, answer, _ in answers]
    wins = 0.0
    for (prompt, _, chosen), judgement in zip(answers, judged):
        wanted = judge(prompt, chosen).utility
        wins += 1.0 if judgement.utility > wanted else 0.5 if judgement.utility == wanted else 0.0
    rights = [j.right for j in judged if j.right is not None]
    return Measures(
        win_rate=wins / len(answers),
        polite=sum(j.polite for j in judged) / len(judged),
        rude=sum(j.rude for j in judged) / len(judged),
        right=sum(rights) / len(rights) if rights else None,
    )


def first_of_each_kind(samples: list[Sample], count: int) -> list[Sample]:
    """Up to `count` samples with different prompts in the order of the file, each kind of question before its second.

    The choice looks at prompts only, so that it cannot flatter.
    """
    distinct: dict[str, Sample] = {}
    of_kind: dict[str | None, Sample] = {}
    for sample in samples:
        distinct.setdefault(sample.prompt, sample)
        of_kind.setdefault(kind_of(sample.prompt), sample)
    firsts = list(of_kind.values())
    return (firsts + [s for s in distinct.values() if s not in firsts])[:count]


def read_samples(path: Path) -> list[Sample]:
    """The samples of a run; none where the file does not exist.

    Raises: UserError with the line that is damaged.
    """
    samples: list[Sample] = []
    if not path.exists():
        return samples
    with open(path, encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                samples.append(Sample(row["prompt"], row["before"], row["after"], row["chosen"]))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}, line {number}: is not a sample ({error!r})", "run the training again"
                ) from None
    return samples


def _read_result(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return {"before": dict(result["before"]), "after": dict(result["after"]), "seconds": float(result["seconds"])}
    except FileNotFoundError:
        raise UserError(
            f"{path.parent}: has no result.json", "the run has not finished; start it again to resume"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not the result of a run ({error!r})", "run the training again") from None


def _print_answers(samples: list[Sample], console: Console) -> None:
    table = Table(title="The same prompts, asked before and after", show_lines=True)
    for heading in ("prompt", "before", "after"):
        table.add_column(heading, ratio=1)
    for sample in first_of_each_kind(samples, NUM_SHOWN):
        answers = (_answer(sample.prompt, answer, console) for answer in (sample.before, sample.after))
        table.add_row(Text(_printable(sample.prompt, console)), *answers)
    console.print(table)


def _add_row(table: Table, label: str, cells: list[str]) -> None:
    """A row, where there is a value for it: a reward model gives no answers, and answers may have no right one."""
    if any(cell != _ABSENT for cell in cells):
        table.add_row(label, *cells)


def _answer(prompt: str, answer: str, console: Console) -> Text:
    judgement = judge(prompt, answer)
    is_bad = judgement.rude or judgement.right is False
    return Text(_printable(answer, console), style="red" if is_bad else "green")


def _printable(text: str, console: Console) -> str:
    """On one line, without control characters and whatever the terminal cannot write: a broken model says anything."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line.encode(console.encoding, "replace").decode(console.encoding)


def _shown(value: float | None, show: Callable[[float], str]) -> str:
    return _ABSENT if value is None else show(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(value: float) -> str:
    return f"{value:.3f}"
