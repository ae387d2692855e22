"""Bytes through readers, formats and encoder, chosen by what they reach (atheris, a coverage-guided fuzzer).

    pip install atheris
    python scripts/fuzz_bytes.py FOLDER [SECONDS]

FOLDER keeps what was found worth keeping, and is filled with `messy_rows.py` where it is empty. Ends with a traceback
and a file crash-... at the first input that is neither refused in a sentence nor accounted for row by row.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
with atheris.instrument_imports(include=["prefopt.data"]):
    from prefopt.data.encode import Encoder
    from prefopt.data.fit import Limits
    from prefopt.data.formats import recognise
    from prefopt.data.load import read_rows
    from prefopt.data.pairing import Pairing
from fuzz_rows import all_needs
from messy_rows import make_rows, make_tokenizer, write_rows

from prefopt.data.tokenizer import load_tokenizer
from prefopt.errors import UserError
from prefopt.settings import SourceSettings

KINDS = ("jsonl", "json", "csv", "parquet", "jsonl.gz")


class Target:
    """What is fuzzed. The first byte of an input chooses the kind of file, the second a method's needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = load_tokenizer(make_tokenizer(folder / "tokenizer"))
        self.needs = all_needs()

    def __call__(self, data: bytes) -> None:
        """Raises: whatever is no refusal."""
        if len(data) < 3:
            return
        kind = KINDS[data[0] % len(KINDS)]
        path = self.folder / f"rows.{kind}"
        path.write_bytes(gzip.compress(data[2:], 1) if kind.endswith(".gz") else data[2:])
        try:
            rows = list(read_rows(SourceSettings(str(path))))
            recognised = recognise(rows[:64], "auto", str(path))
            needs = self.needs[data[1] % len(self.needs)]
            limits = Limits(4096, None, "drop")
            chunk = Encoder(self.tokenizer, recognised, needs, Pairing(), "append", limits).encode(rows)
        except UserError:
            return
        assert chunk.kept.num_rows + len(chunk.left_out) == len(rows)
        assert all(row["reason"] for row in chunk.left_out)


def fill(corpus: Path) -> None:
    """Files to begin with."""
    corpus.mkdir(parents=True, exist_ok=True)
    if any(corpus.iterdir()):
        return
    for number in range(200):
        random = Random(number)
        kind = KINDS[number % (len(KINDS) - 1)]
        with tempfile.TemporaryDirectory() as folder:
            file = write_rows(random, Path(folder), make_rows(random, 2), kind)
            (corpus / str(number)).write_bytes(
                bytes([KINDS.index(kind), random.randrange(256)]) + file.path.read_bytes()
            )


def main() -> None:
    """Fuzz for some seconds (default: 300)."""
    corpus, seconds = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "300"
    fill(corpus)
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder))
        flags = [f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=8000", "-timeout=60"]
        atheris.Setup([sys.argv[0], *flags, str(corpus)], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
