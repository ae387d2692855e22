"""How lines are printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLAIN: Mapping[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
"""For `Console.print`: a line as it is, whatever brackets a path holds, and no break that a copy would take along."""
