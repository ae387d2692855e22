"""Shared by all tests: one thread, no network, and where the shared material lies."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import settings

# No deadline: how long an example takes says more of the machine's other work than of the code. The same examples in
# every run, so that a failure is the change's and not luck; search for new ones with --hypothesis-profile=default.
settings.register_profile("prefopt", deadline=None, derandomize=True)
settings.load_profile("prefopt")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and models beside the repository; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (real data and models), which is not beside this checkout")
    return SHARED
