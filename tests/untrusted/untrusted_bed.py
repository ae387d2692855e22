"""What `prefopt train` says to words that it must refuse."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import overrides

from prefopt.checks import check
from prefopt.config import compose
from prefopt.errors import UserError


def refusal(words: list[str], config_dir: Path | None = None) -> str:
    """What `prefopt train` says to these words before it prepares anything."""
    with pytest.raises(UserError) as error:
        check(compose(words, config_dir))
    assert error.value.exit_code == 2
    assert "\n" not in error.value.message
    return error.value.message


def words_for(material: tuple[Path, Path], tmp_path: Path, *more: str) -> list[str]:
    return overrides(*material, tmp_path / "run", *more)
