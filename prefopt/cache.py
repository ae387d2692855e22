"""Where tokenised data and reference columns are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from prefopt.settings import DataSettings


def cache_folder(settings: DataSettings) -> Path:
    """$PREFOPT_CACHE, else data.cache_dir, else prefopt's folder in the user's cache ($XDG_CACHE_HOME or ~/.cache)."""
    named = os.environ.get("PREFOPT_CACHE") or settings.cache_dir
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "prefopt"
