"""`prefopt plan`: from a composed run to a page."""

from __future__ import annotations

from prefopt.cache import cache_folder
from prefopt.errors import UserError
from prefopt.plan.estimate import estimate
from prefopt.plan.place import Wished
from prefopt.plan.show import print_estimate, to_json
from prefopt.plan.workload import Given
from prefopt.settings import ModelSettings, RunSettings


def plan(run: RunSettings, wished: Wished, given: Given, *, as_json: bool) -> int:
    """Print what a checked run would take; 0, whether it fits or not.

    Raises: UserError where model, data or machine are not known, or an option is out of range.
    """
    for option, value in (
        ("--rows", given.rows),
        ("--prompt-tokens", given.prompt),
        ("--response-tokens", given.response),
    ):
        if value is not None and value < 1:
            raise UserError(f"{option} must be 1 or more, not {value}")
    found = estimate(run, wished, given, _real_model(run))
    if as_json:
        print(to_json(found))
        return 0
    from rich.console import Console

    print_estimate(found, Console())
    return 0


def _real_model(run: RunSettings) -> ModelSettings:
    """The model's settings with a real path in the place of a demo's."""
    if not run.model.path.startswith("demo://"):
        return run.model
    from prefopt import demo

    return demo.resolve(run, cache_folder(run.data), weights=False).model
