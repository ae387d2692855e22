"""A reference that is asked beside the policy at every step, where a method compares whole distributions."""

from __future__ import annotations

from collections.abc import Callable

from prefopt.needs import LIVE
from prefopt.train.engine import Engine
from prefopt.train.reference import load_reference, names_another_reference


def attach_live_reference(engine: Engine, needs: frozenset[str], longest: int, say: Callable[[str], None]) -> None:
    """Give the engine a live reference where the method compares distributions: none is needed where adapters can be
    switched off, else a frozen copy of the start (or of the model that the recipe names) stays in memory.

    Raises: UserError under ZeRO-3, where such a copy cannot be sharded.
    """
    if not needs & LIVE:
        return
    if engine.policy.has_adapters and not names_another_reference(engine.run):
        return
    say("the method compares whole distributions: a frozen copy of the reference stays in memory")
    engine.live_reference = load_reference(engine, longest)
