"""Messy files through the real preparation: every row is kept or named, or the file is refused in one sentence.

    python scripts/fuzz_rows.py --rows 100000 --seed 1

Prints one JSON object: rows, kept, left out by reason, files refused by sentence, crashes, seconds. Exit code 1 where
there was a crash or an account that does not add up; each names the file's number, and `--only NUMBER` does it again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from messy_rows import Written, make_rows, make_tokenizer, write_rows

MOST_ROWS = 160
FILES_PER_HUGE = 150
"""One file in so many holds a text of ten megabytes."""

FILES_PER_BATCH = 500


class Outcome(NamedTuple):
    """What became of one file. refused: the sentence, without what differs from file to file. crash: a traceback."""

    number: int
    rows: int = 0
    kept: int = 0
    left_out: dict[str, int] | None = None
    refused: str = ""
    crash: str = ""


def examine(number: int, file: Written, needs: frozenset[str], settings: Any, tokenizer: str, cache: Path) -> Outcome:
    """Prepare a file, and hold its account against what is known of it."""
    from prefopt.data.dataset import DropError, prepare
    from prefopt.errors import UserError

    try:
        prepared = prepare(settings, tokenizer, needs, cache)
        report, left_out = prepared.report, prepared.left_out
        kept = [int(example.id.rpartition(":")[2]) for example in prepared.train]
        assert min(map(len, (r for e in prepared.train for r in e.responses)), default=1) >= 1, "an empty response"
        assert min((len(e.prompt) for e in prepared.train), default=1) >= 1, "an empty prompt"
        json.dumps([report, left_out], ensure_ascii=False).encode()
    except DropError as error:  # none can be used: that too is an account
        report, left_out, kept = error.prepared.report, error.prepared.left_out, []
    except UserError as error:
        return Outcome(number, refused=_sentence(str(error), file.path))
    except Exception:
        return Outcome(number, crash=traceback.format_exc())
    try:
        check_account(report["total"], kept, left_out, file.num_rows)
    except AssertionError as error:
        return Outcome(number, crash=f"the account of {file.path.name} does not add up: {error}")
    reasons = Counter(row["reason"] for row in left_out)
    return Outcome(number, report["total"]["read"], len(kept), dict(reasons))


def check_account(total: dict[str, Any], kept: list[int], left_out: list[dict[str, Any]], num_rows: int | None) -> None:
    """Every row is kept or left out, once, and each that is left out says which it is and why.

    num_rows: in the file, where that is known.

    Raises: AssertionError.
    """
    out = [row["row"] for row in left_out]
    assert len(set(kept + out)) == len(kept) + len(out), "a row is twice in it"
    assert (total["read"], total["kept"]) == (len(kept) + len(out), len(kept)), f"{total['read']} read"
    assert num_rows is None or total["read"] == num_rows, f"{total['read']} of {num_rows} rows read"
    for row in left_out:
        assert row["reason"], row
        assert str(row["id"]).endswith(f":{row['row']}"), row
        assert isinstance(row["detail"], str), row


def _sentence(message: str, path: Path) -> str:
    """A refusal without the file, numbers and quotations."""
    first = message.splitlines()[0].replace(str(path), "FILE").replace(path.name, "FILE")
    for pattern, word in ((r"'.*'|\".*\"", "'...'"), (r"\(.*\)", "(...)"), (r"FILE(:\d+)*", "FILE"), (r"\d+", "N")):
        first = re.sub(pattern, word, first)
    return re.sub(r"(columns seen|rows of format) [^;]*", r"\1 ...", first)[:160]


def all_needs() -> list[frozenset[str]]:
    """What the methods ask of the data, each set once."""
    from prefopt.data.needs import DATA_NEEDS
    from prefopt.losses import make_loss, names

    found = {make_loss({"name": name}).needs & DATA_NEEDS for name in names() if name != "mix"}
    return sorted(found, key=sorted)


def draw_settings(random: Random, path: Path) -> Any:
    """Settings under which `path` is prepared."""
    from prefopt.settings import DataSettings, SourceSettings

    return DataSettings(
        train=[SourceSettings(str(path))],
        max_length=random.choice([8, 64, 4096, 4096, 4096]),
        max_prompt_length=random.choice([None] * 7 + [4]),
        too_long=random.choice(["drop", "drop", "truncate_prompt", "truncate_response", "error"]),
        chat_template=random.choice([None, None, None, "chatml", "hh"]),
        eos=random.choice(["append", "append", "keep"]),
        pairs=random.choice(["best_vs_worst", "all", "adjacent", "random"]),
        min_score_gap=random.choice([0.0, 0.0, 0.3]),
        max_drop_fraction=1.0,
        num_workers=1,
    )


def one_file(seed: int, number: int, tokenizer: str) -> Outcome:
    """The file of that number, made, prepared and deleted."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    random = Random(f"{seed} {number}")
    with tempfile.TemporaryDirectory(prefix="prefopt-fuzz-") as folder:
        rows = make_rows(random, random.randint(1, MOST_ROWS), num_huge=int(number % FILES_PER_HUGE == 0))
        file = write_rows(random, Path(folder), rows)
        settings, needs = draw_settings(random, file.path), random.choice(all_needs())
        return examine(number, file, needs, settings, tokenizer, Path(folder) / "cache")


def outcomes(seed: int, workers: int, tokenizer: str) -> Iterator[Outcome]:
    """What becomes of one file after the other, without end. A worker that dies takes its batch along, as crashes."""
    context = multiprocessing.get_context("spawn")
    for batch in count():
        numbers = range(batch * FILES_PER_BATCH, (batch + 1) * FILES_PER_BATCH)
        if workers == 1:
            yield from (one_file(seed, number, tokenizer) for number in numbers)
            continue
        with ProcessPoolExecutor(workers, context) as pool:
            running = {pool.submit(one_file, seed, number, tokenizer): number for number in numbers}
            for done in as_completed(running):
                try:
                    yield done.result()
                except BrokenProcessPool:
                    yield Outcome(running[done], crash="a worker died: one of the files that then were at work")


def until(found: Iterator[Outcome], num_rows: int) -> Iterator[Outcome]:
    """So many outcomes that `num_rows` rows are accounted for."""
    rows = 0
    for outcome in found:
        yield outcome
        rows += outcome.rows
        if rows >= num_rows:
            return


def summary(found: Iterator[Outcome], seed: int) -> dict[str, Any]:
    """All outcomes as one object."""
    begun, rows, kept, files = time.perf_counter(), 0, 0, 0
    reasons, refused, crashes = Counter[str](), Counter[str](), []
    for outcome in found:
        files += 1
        rows, kept = rows + outcome.rows, kept + outcome.kept
        reasons.update(outcome.left_out or {})
        if outcome.refused:
            refused[outcome.refused] += 1
        if outcome.crash:
            crashes.append({"file": outcome.number, "said": outcome.crash})
            print(f"file {outcome.number}:\n{outcome.crash}", file=sys.stderr, flush=True)
    return {
        "seed": seed,
        "files": files,
        "rows": rows,
        "kept": kept,
        "left_out": sum(reasons.values()),
        "left_out_by_reason": dict(reasons.most_common()),
        "files_refused": sum(refused.values()),
        "files_refused_by_sentence": dict(refused.most_common()),
        "crashes": crashes,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def main() -> int:
    """0 where every row is accounted for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="that are kept or left out; of refused files none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, help="the number of one file")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory(prefix="prefopt-fuzz-tokenizer-") as folder:
        tokenizer = make_tokenizer(Path(folder))
        if options.only is not None:
            found: Iterator[Outcome] = iter([one_file(options.seed, options.only, tokenizer)])
        else:
            found = until(outcomes(options.seed, options.workers, tokenizer), options.rows)
        result = summary(found, options.seed)
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return 1 if result["crashes"] else 0


if __name__ == "__main__":
    sys.exit(main())
