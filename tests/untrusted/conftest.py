"""A model and pairs that may be spoilt, and a place where code that ran would leave its marker."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import make_model, make_pairs


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A whole model and pairs."""
    folder = tmp_path_factory.mktemp("untrusted")
    return make_model(folder / "model"), make_pairs(folder / "pairs.jsonl")


@pytest.fixture
def model(material: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return shutil.copytree(material[0], tmp_path / "model")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"
