"""A process that is killed before any of the operations of a save leaves the checkpoint before, or the new one."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
from ragged import make_engine, one_step, settings

from prefopt.train import checkpoint
from prefopt.train.checkpoint import Progress
from prefopt.train.engine import Engine

WATCHED = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")


def killed_in_save(engine: Engine, folder: Path, at: int) -> bool:
    """Whether a save in a process of its own was killed at its operation number `at`; False: it came to its end."""
    child = os.fork()
    if child == 0:
        done = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal done
            if event in WATCHED and str(folder) in str(arguments[0]):
                done += 1
                if done == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        checkpoint.save(engine, folder, Progress(step=3), keep=2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


def test_killed_before_every_operation_of_a_save(tmp_path: Path) -> None:
    engine = make_engine(settings("one"))
    straight = tmp_path / "straight"
    for step in (1, 2):
        one_step(engine, "sft", "one")
        checkpoint.save(engine, straight, Progress(step=step), keep=2)
    one_step(engine, "sft", "one")
    found_steps, at = [], 0
    while True:
        at += 1
        folder = tmp_path / f"at-{at}"
        shutil.copytree(straight, folder)
        was_killed = killed_in_save(engine, folder, at)
        found = checkpoint.newest(folder)
        assert found is not None
        path, progress, complaints = found
        assert complaints == []
        assert progress.step == int(path.name.removeprefix("step-"))
        found_steps.append(progress.step)
        assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]
        checkpoint.save(engine, folder, Progress(step=3), keep=2)  # the run goes on, and comes here again
        again = checkpoint.newest(folder)
        assert again is not None
        assert (again[1].step, again[2]) == (3, [])
        if not was_killed:
            break
    assert at > 12  # at least: two folders, two states, the manifest and its draft, two renames, the pruning
    assert found_steps == sorted(found_steps)
    assert set(found_steps) == {2, 3}
