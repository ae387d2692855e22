"""`prefopt plan`: from a composed run to a page."""

from __future__ import annotations

from dataclasses import replace

from prefopt.cache import cache_folder
from prefopt.checks import check_settings
from prefopt.errors import UserError
from prefopt.plan.estimate import Estimate, estimate
from prefopt.plan.place import Wished
from prefopt.plan.rows import Given
from prefopt.plan.show import print_estimate, to_json
from prefopt.settings import ModelSettings, RunSettings


def plan(run: RunSettings, wished: Wished, given: Given, *, as_json: bool) -> int:
    """Print what a composed run would take; 0, whether it fits or not.

    Raises: UserError as `plan_of`.
    """
    found = plan_of(run, wished, given)
    if as_json:
        print(to_json(found))
        return 0
    from rich.console import Console

    print_estimate(found, Console())
    return 0


def plan_of(run: RunSettings, wished: Wished, given: Given) -> Estimate:
    """What a composed run would take.

    Raises: UserError where a setting cannot be, model, data or machine are not known, or an option is out of range.
    """
    check_settings(_without_files(run))
    for option, value in (
        ("--rows", given.rows),
        ("--prompt-tokens", given.prompt),
        ("--response-tokens", given.response),
    ):
        if value is not None and value < 1:
            raise UserError(f"{option} must be 1 or more, not {value}")
    return estimate(run, wished, given, _real_model(run))


def _without_files(run: RunSettings) -> RunSettings:
    """The run with names that nobody looks up: a run needs weights and a tokenizer, a plan does not."""
    model = run.model
    reference = model.reference and ("on/paper" if model.reference == model.path else "on/other-paper")
    return replace(run, model=replace(model, path=model.path and "on/paper", tokenizer=None, reference=reference))


def _real_model(run: RunSettings) -> ModelSettings:
    """The model's settings with a real path in the place of a demo's."""
    if not run.model.path.startswith("demo://"):
        return run.model
    from prefopt import demo

    return demo.resolve(run, cache_folder(run.data), weights=False).model
