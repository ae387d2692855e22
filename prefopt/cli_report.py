"""The words of `prefopt report`."""

from __future__ import annotations

from pathlib import Path

from prefopt import cli_help
from prefopt.cli_words import Parser
from prefopt.errors import UserError


def report(words: list[str]) -> int:
    """Run the command; its exit code.

    Raises: UserError for words that it has not, and as `prefopt.report.command.report`.
    """
    parser = Parser("report")
    for name in ("--sort", "--metrics", "--objectives", "--format", "--html", "--figures"):
        parser.add_argument(name, default="")
    for name in ("--no-html", "--seeds"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--compare", nargs=2, default=())
    options = parser.read(_with_signs(words))
    if options.help:
        print(cli_help.REPORT, end="")
        return 0
    if options.config_dir:
        raise UserError("--config-dir: a report reads runs and no recipes", "leave it out")
    from rich.console import Console

    from prefopt.report.command import Wanted
    from prefopt.report.command import report as make

    wanted = Wanted(
        [Path(word) for word in options.overrides],
        sort=options.sort,
        metrics=options.metrics,
        each_seed=options.seeds,
        form=options.format or "table",
        html=options.html,
        has_page=not options.no_html,
        figures=options.figures,
        objectives=options.objectives,
        compare=options.compare,
    )
    return make(wanted, Console())


def _with_signs(words: list[str]) -> list[str]:
    """`--sort -METRIC` as one word: argparse takes what begins with a minus for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--sort":
            joined[-1] = f"--sort={word}"
        else:
            joined.append(word)
    return joined
