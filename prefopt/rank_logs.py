"""What ranks write to stderr: kept in a file each, shown where the command runs, and told from when one dies.

A rank writes straight into its file, so that its last words are there however it ends; whoever started it copies them
to the terminal. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.disk import unwritten
from prefopt.masking import masked

LOGS = "logs"
VARIABLE = "PREFOPT_RANK_LOGS"
"""Names the folder to a rank; without it a rank writes to the stderr that it was given."""

_LOST_A_PEER = re.compile(r"closed by peer|reset by peer|broken pipe|timed out|watchdog|connection refused", re.I)
_PATIENCE = 20.0
"""A rank that is killed so many seconds after another failed was asked to end and did not: torch asks for 30."""


_given_stderr: int | None = None
"""A rank's stderr as it was before `capture`: for its last words where the run folder is full, or gone."""


def log_file(folder: Path, rank: int) -> Path:
    """Where rank `rank` of the run in `folder` writes."""
    return folder / LOGS / f"rank-{rank}.log"


def capture() -> None:
    """In a rank, as early as can be: stderr, also that of libraries in C, goes to this rank's file.

    What libraries in C write of secrets is masked when the ranks have ended (`shown`), what Python writes at once.

    Raises: RunError where it cannot be written.
    """
    global _given_stderr
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    file = log_file(Path(folder), int(os.environ.get("RANK", "0")))
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    except OSError as error:
        raise unwritten(file, error) from None
    _given_stderr = os.dup(2)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def complain(sentence: str) -> None:
    """In a rank whose run folder takes nothing any more: to the stderr that it was given."""
    os.write(2 if _given_stderr is None else _given_stderr, f"{sentence}\n".encode())


def write_exit(folder: Path, said: Mapping[str, Any]) -> bool:
    """exit.json, whole or not at all, unless somebody was quicker: of ranks that fail alike the first speaks for all.

    Raises: OSError where it cannot be written.
    """
    file = folder / "exit.json"
    try:
        with open(file, "x", encoding="utf-8") as out:
            json.dump(said, out)
    except FileExistsError:
        return False
    except OSError:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        raise
    return True


def clear(folder: Path) -> None:
    """Make room for the logs of a new start."""
    (folder / LOGS).mkdir(exist_ok=True)
    for file in (folder / LOGS).glob("rank-*.log"):
        file.unlink(missing_ok=True)


def holds(folder: Path, line: str) -> bool:
    """Whether a rank's log has this line."""
    return any(
        line in file.read_text(encoding="utf-8", errors="replace") for file in (folder / LOGS).glob("rank-*.log")
    )


@contextmanager
def shown(folder: Path, ranks: range) -> Iterator[None]:
    """Meanwhile what `ranks` write also appears on this process's stderr; all of it has when this ends.

    Secrets are masked on the way, and in the files once this ends.
    """
    ended = threading.Event()
    files = {log_file(folder, rank): (0, 0) for rank in ranks}

    def follow() -> None:
        while not ended.wait(0.1):
            _copy_new(files, to_the_end=False)
        _copy_new(files, to_the_end=True)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
        for file in files:
            _mask_file(file)


def _mask_file(path: Path) -> None:
    """Take out of a log what was written past Python's streams."""
    try:
        text = path.read_bytes()
        clean = _masked_bytes(text)
        if clean != text:
            path.write_bytes(clean)
    except OSError:  # there is none, or the disk is full: the rank's own words matter more
        return


def _masked_bytes(text: bytes) -> bytes:
    return masked(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _copy_new(files: dict[Path, tuple[int, int]], to_the_end: bool) -> None:
    """files: bytes shown, and bytes there were at the last look. to_the_end: also the beginning of a line.

    Else that is shown when it has not grown since the last look: a secret that is being written is not cut in two.
    """
    for path, (done, seen) in files.items():
        try:
            with open(path, "rb") as file:
                file.seek(done)
                new = file.read()
        except OSError:  # not there yet
            continue
        there = done + len(new)
        if not to_the_end and there != seen:
            new = new[: max(new.rfind(b"\n"), new.rfind(b"\r")) + 1]
        files[path] = done + len(new), there
        new = _masked_bytes(new)
        while new:
            try:
                new = new[os.write(2, new) :]
            except OSError:  # nobody reads any more; the file has it
                break


def last_lines(folder: Path, rank: int, count: int = 5) -> list[str]:
    """The last lines of a rank that are not empty; none where it wrote nothing."""
    try:
        with open(log_file(folder, rank), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 16384))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


@dataclass(frozen=True)
class Death:
    """How a rank ended. code: its exit code, minus the signal's number for a signal. at: seconds, of any clock."""

    code: int
    at: float = 0.0


def cause(folder: Path, deaths: Mapping[int, Death]) -> int:
    """The rank that ended first of itself: not one that was ended then, or lost its connection to one that had."""
    first = min(death.at for death in deaths.values())

    def suspicion(rank: int) -> tuple[int, float, int]:
        death = deaths[rank]
        if was_ended(death, first):
            return 3, death.at, rank
        if death.code < 0 and death.code != -signal.SIGABRT:  # libraries abort when a peer is lost
            return 0, death.at, rank
        lost = any(_LOST_A_PEER.search(line) for line in last_lines(folder, rank))
        return (2 if lost else 1), death.at, rank

    return min(deaths, key=suspicion)


def was_ended(death: Death, first: float) -> bool:
    """Whether a rank was ended by its launcher, because another had failed at `first`."""
    return death.code == -signal.SIGTERM or (death.code == -signal.SIGKILL and death.at - first > _PATIENCE)


def tell(folder: Path, deaths: Mapping[int, Death]) -> tuple[str, str]:
    """A sentence on the rank that took the others along, and its last lines."""
    rank = cause(folder, deaths)
    lines = last_lines(folder, rank)
    sentence = f"rank {rank} {_ending(deaths[rank].code)}"
    if lines:
        sentence += f": {lines[-1].strip()}"
    first = min(death.at for death in deaths.values())
    hung = [r for r in deaths if r != rank and deaths[r].code == -signal.SIGKILL and was_ended(deaths[r], first)]
    told = [f"rank {r} hung: it did not end when it was asked to, and was killed" for r in hung]
    if lines:
        told.append(f"its last lines, all of them in {log_file(folder, rank)}:")
        told += [f"  {line}" for line in lines]
    return sentence, "\n  ".join(told)


def write_death(folder: Path, deaths: Mapping[int, Death]) -> dict[str, Any]:
    """exit.json for ranks that ended without writing one, where there is none yet; what it says."""
    message, hint = tell(folder, deaths)
    text = f"{message}\n  {hint}" if hint else message
    said = {"exit_code": 1, "rank": cause(folder, deaths), "message": masked(text)}
    with suppress(OSError):
        write_exit(folder, said)
    return said


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL, which the kernel also sends where memory runs out"
    if code == -signal.SIGBUS:
        return (
            "was ended by SIGBUS: a file that it reads through memory, encoded data or weights, was cut short"
            " or cannot be read any more, or shared memory is full"
        )
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
