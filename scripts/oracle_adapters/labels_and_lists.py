"""Adapters of the methods that learn from labels, rankings, scalar heads and verdicts."""

from __future__ import annotations

from typing import Any

from oracle_adapters.common import Adapter

ADAPTERS: dict[str, Adapter] = {}
END_TO_END: dict[str, Any] = {}
