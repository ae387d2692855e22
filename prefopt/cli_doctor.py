"""The words of `prefopt doctor`."""

from __future__ import annotations

from prefopt.cli_words import Parser
from prefopt.errors import UserError

HELP = """\
usage: prefopt doctor [--json]

Look at what a run would meet on this machine: python and packages, torch, driver, each GPU, gloo and NCCL, cores,
memory, disks, DeepSpeed and its compiler, bitsandbytes, trackers, SLURM, the hub. One line each: ok, warning (some runs
will not work) or problem (a run with default settings will not), and what to do. Tokens are looked for and never shown.

options:
  --json    the same as one JSON object

exit codes: 0 a run with default settings works, 1 it does not, 2 misuse
"""


def doctor(words: list[str]) -> int:
    """Run the command; its exit code.

    Raises: UserError for words that it has not.
    """
    parser = Parser("doctor")
    parser.add_argument("--json", action="store_true")
    options = parser.read(words)
    if options.help:
        print(HELP, end="")
        return 0
    if options.overrides or options.config_dir:
        raise UserError("prefopt doctor looks at the machine and takes no settings", "prefopt doctor [--json]")
    from rich.console import Console

    from prefopt.doctor.command import doctor as look

    return look(Console(), options.json)
