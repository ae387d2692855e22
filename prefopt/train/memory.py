"""Memory: how much there is for this process, how much it took at most, and what it looks like when there is none."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

REFUSALS = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory", "ALLOC_FAILED")
"""Words of torch's own RuntimeErrors for memory that it was not given, on CPU and in CUDA's libraries."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory was asked for and refused."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in REFUSALS)


def room(device: torch.device, num_sharing: int) -> int:
    """Bytes that this process may hold at most, what it holds already included.

    num_sharing: processes like this one that share the memory of a CPU; each GPU is one process's own.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    held = psutil.Process().memory_info()
    free = min([psutil.virtual_memory().available, *_free_in_groups()])
    most = held.rss + free // num_sharing
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        most = min(most, held.rss + max(0, limit - held.vms))
    return most


def _free_in_groups() -> list[int]:
    """Bytes left in each control group with a limit that this process is in (Linux; containers, batch systems)."""
    found = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                root, limit, used = Path("/sys/fs/cgroup"), "memory.max", "memory.current"
            elif "memory" in controllers.split(","):
                root, limit, used = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"
            else:
                continue
            # Inside a container the path may be that of the host; the group itself is then mounted at the root.
            for folder in {root / path.lstrip("/"), root}:
                with suppress(OSError, ValueError):  # "max" is no number: no limit
                    free = int((folder / limit).read_text()) - int((folder / used).read_text()) + _cached(folder)
                    found.append(max(0, free))
    return found


def _cached(folder: Path) -> int:
    """Bytes of files that a control group holds in memory and gives back when they are needed."""
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def forget_peak(device: torch.device) -> None:
    """Begin anew with what `peak` tells, where the system lets us: Linux does."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> int:
    """Bytes of this rank at their most.

    GPU: what torch's allocator had given out, since the clock was started before the step (without what CUDA, its
    libraries and the allocator's reserve take). CPU: the resident size of the process since it began, libraries and
    everything that is only loading included; a system tells no peak of a part of a process's life.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; getrusage there keeps the peak of the process that this one was forked from
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
