"""A lock that a killed start left in torch's folder of extensions does not hold up the next; one that is held stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefopt import compiled

HOLD = """
import sys, time
from torch.utils.file_baton import FileBaton
baton = FileBaton(sys.argv[1])
assert baton.try_acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch puts the lock of an extension; nobody has taken it."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (tmp_path / "deepspeed_shm_comm").mkdir()
    return tmp_path / "deepspeed_shm_comm" / "lock"


def test_a_lock_is_left_to_who_holds_it_and_taken_from_the_dead(lock: Path, capsys: pytest.CaptureFixture) -> None:
    assert compiled.free_abandoned() == []
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert compiled.free_abandoned() == []
    assert lock.exists()
    holder.kill()
    holder.communicate()
    assert lock.exists()
    assert compiled.free_abandoned() == [lock]
    assert not lock.exists()
    assert f"removed {lock}" in capsys.readouterr().err


def test_on_a_disk_of_several_machines_only_an_old_one_is_taken(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_NETWORK", ("",))  # every disk counts as shared
    lock.touch()
    assert compiled.free_abandoned() == []
    old = time.time() - compiled.SILENCE - 1
    os.utime(lock, (old, old))
    assert compiled.free_abandoned() == [lock]


def test_the_folder_is_the_one_that_torch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.cpp_extension import get_default_build_root

    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    assert str(compiled.extensions_folder().resolve()) == get_default_build_root()
