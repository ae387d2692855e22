"""What is said of memory: the process's own peak, which no smaller one takes back."""

from __future__ import annotations

import subprocess
import sys

import psutil
import torch

from prefopt.train.memory import peak
from prefopt.train.timings import TIMINGS

CPU = torch.device("cpu")


def test_the_peak_grows_with_what_is_touched_and_stays() -> None:
    before = peak(CPU)
    size = before - psutil.Process().memory_info().rss + 2**27  # fills what was given back, and 128 MiB more
    block = torch.ones(size, dtype=torch.uint8)
    during = peak(CPU)
    assert during >= before + 2**27 - 2**24
    assert during >= psutil.Process().memory_info().rss - 2**22
    del block
    assert abs(peak(CPU) - during) < 2**22  # the kernel counts pages per core and adds them up now and then


def test_a_process_does_not_begin_with_the_peak_of_the_one_that_started_it() -> None:
    block = torch.ones(2**30, dtype=torch.uint8)
    code = "import torch; from prefopt.train.memory import peak; print(peak(torch.device('cpu')))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(told) < block.numel()


def test_a_resumed_run_may_differ_in_it() -> None:
    assert "peak_memory_bytes" in TIMINGS
