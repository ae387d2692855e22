"""Tests that need a GPU skip themselves where there is none; `make test-gpu` runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder skips without CUDA, before any of its fixtures is made."""
    if torch.cuda.is_available():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _one_device_at_a_time() -> Iterator[None]:
    """What a test leaves of accelerate's idea of the machine, and of memory, does not reach the next."""
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
