"""Whether the stages of a `prefopt pairs` would do, told before a folder is made and by `--dry-run`.

What only the weights, a server or a user's own code can tell is found out when a stage opens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prefopt.model.files import fingerprint_of
from prefopt.pairs.called import called, of_stage
from prefopt.pairs.places import real
from prefopt.pairs.registry import make_stage
from prefopt.pairs.settings import PairsSettings
from prefopt.pairs.stages import Asked, Checks
from prefopt.records import Example


def check_stages(settings: PairsSettings, longest_prompts: Callable[[], Sequence[Example]]) -> None:
    """Ask every stage that can tell. longest_prompts: as of `Asked`.

    Raises: UserError for the first that would not do: its models, files or limits.
    """
    asked = Asked(settings, longest_prompts)
    named = [
        ("generate", "generate", settings.generate),
        *(("score", where, stage) for where, stage in scorers(settings)),
    ]
    for kind, where, stage in named:
        made = make_stage(kind, stage, where)
        if isinstance(made, Checks):
            with of_stage(where):
                made.check(asked)


def fingerprints(settings: PairsSettings) -> dict[str, str]:
    """The sha256 of each model that is named: other weights make other answers. Raises: UserError for no model."""
    found = {}
    for path, key in models(settings).items():
        with called(key):
            found[path] = fingerprint_of(real(path, key))
    return found


def models(settings: PairsSettings) -> dict[str, str]:
    """Each model that is named, once, to the setting that names it."""
    own = [(stage.get("model"), f"{where}.model") for where, stage in scorers(settings) if "url" not in stage]
    named = [
        *((path, "policy") for path in settings.policies),
        (settings.reward, "reward"),
        (settings.reference, "reference"),
        *own,
    ]
    found: dict[str, str] = {}
    for path, key in named:
        if path:
            found.setdefault(str(path), key)
    return found


def scorers(settings: PairsSettings) -> list[tuple[str, dict[str, object]]]:
    """The scoring stages by their keys: the main one, then those of the margins."""
    return [("score", settings.score), *((f"margins.{n}", margin) for n, margin in enumerate(settings.margins))]
