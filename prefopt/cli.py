"""The command line: reads words, calls one function, turns a `UserError` into a message and an exit code.

Nothing heavy is imported here: `--help` and every configuration error come at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from prefopt import __version__, cli_help
from prefopt.cli_words import Parser
from prefopt.disk import disk_failure
from prefopt.errors import UserError, did_you_mean
from prefopt.masking import mask_streams, masked
from prefopt.peer_names import GOES_ON, WITHOUT_A_KEY

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code. Exceptions that are neither a user's nor a disk's keep their traceback."""
    if arguments is None:  # the process is ours
        mask_streams()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return _dispatch(words)
    except UserError as error:
        sys.stdout.flush()
        print(f"prefopt: {masked(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("prefopt: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this Python complains again while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        failure = disk_failure(error)
        if failure is None:
            raise
        print(f"prefopt: {failure}", file=sys.stderr)
        return failure.exit_code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(cli_help.main_help(), end="")
        return 0
    if words[0] == "--version":
        print(f"prefopt {__version__}")
        return 0
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "sweep": _sweep,
        "pairs": _pairs,
        "eval": _eval,
        "data": _data,
        "plan": _plan,
        "rounds": _rounds,
        "report": _report,
        "losses": _losses,
        "doctor": _doctor,
        "export": _export,
        "import": _import,
        "completion": _completion,
    }
    if words[0] not in commands:
        goes_on = f"prefopt train: {GOES_ON}" if words[0] in WITHOUT_A_KEY else ""
        raise UserError(f"there is no command {words[0]!r}", goes_on or did_you_mean(words[0], commands))
    return commands[words[0]](words[1:])


def _train(words: list[str]) -> int:
    from prefopt.cli_train import train

    return train(words)


def _sweep(words: list[str]) -> int:
    commands = ("status", "resume", "retry", "cancel")
    command = words[0] if words else "--help"
    if command not in (*commands, "-h", "--help"):
        raise UserError(f"there is no command sweep {command}", did_you_mean(command, commands))
    parser = Parser("sweep")
    if command == "status":
        parser.add_argument("--json", action="store_true")
    if command == "retry":
        parser.add_argument("--failed", action="store_true")
    if command in ("retry", "cancel"):
        parser.add_argument("--job", type=int, action="append", default=[], metavar="N")
    options = parser.read(words[1:])
    if command in ("-h", "--help") or options.help:
        print(cli_help.SWEEP, end="")
        return 0
    if options.config_dir:
        raise UserError("--config-dir: a sweep goes on with the one that it was started with", "leave it out")
    folders = [Path(word) for word in options.overrides if "=" not in word]
    changes = [word for word in options.overrides if "=" in word]
    if len(folders) > 1:
        raise UserError(f"one sweep at a time, not {folders[0]} and {folders[1]}")
    if changes and command in ("status", "cancel"):
        raise UserError(f"{changes[0]}: sweep {command} changes nothing", "leave it out")
    from prefopt.sweeps import commands as sweeps

    folder = folders[0] if folders else None
    if command == "status":
        return sweeps.status(folder, options.json)
    if command == "cancel":
        from prefopt.sweeps.cancel import cancel

        if folder is not None and str(folder).isdigit() and not folder.exists():
            raise UserError(f"{folder}: there is no such folder of a sweep", f"a job is chosen by --job {folder}")
        return cancel(folder, options.job)
    if command == "resume":
        return sweeps.resume(folder, changes)
    if options.failed and options.job:
        raise UserError("--failed has no effect beside --job", "leave one of them out")
    if not options.failed and not options.job:
        raise UserError(
            "sweep retry: say which jobs",
            "--failed for those that failed, --job N for one, or prefopt sweep resume for all that are not done",
        )
    return sweeps.resume(folder, changes, options.failed, options.job)


def _pairs(words: list[str]) -> int:
    parser = Parser("pairs")
    for name in ("--dry-run", "--show-config"):
        parser.add_argument(name, action="store_true")
    options = parser.read(words)
    if options.help:
        print(cli_help.pairs_help(options.config_dir), end="")
        return 0
    from prefopt.pairs_config import compose_pairs

    composition = compose_pairs(options.overrides, options.config_dir)
    for note in composition.notes:
        print(f"prefopt: {note}", file=sys.stderr)
    if options.show_config:
        from rich.console import Console

        from prefopt.dry_run import print_settings

        print_settings(composition.sources(), Console())
        return 0
    from prefopt.make_pairs import make_pairs

    return make_pairs(composition, words, dry_run=options.dry_run)


def _eval(words: list[str]) -> int:
    parser = Parser("eval")
    for name in ("--dry-run", "--show-config", "--json"):
        parser.add_argument(name, action="store_true")
    options = parser.read(words)
    if options.help:
        print(cli_help.eval_help(options.config_dir), end="")
        return 0
    if options.json and (options.dry_run or options.show_config):
        other = "--dry-run" if options.dry_run else "--show-config"
        raise UserError(f"--json has no effect beside {other}", "leave one of them out")
    from prefopt.eval_config import compose_eval

    composition = compose_eval(options.overrides, options.config_dir)
    for note in composition.notes:
        print(f"prefopt: {note}", file=sys.stderr)
    from rich.console import Console

    if options.show_config:
        from prefopt.dry_run import print_settings

        print_settings(composition.sources(), Console())
        return 0
    from prefopt.make_eval import make_eval

    return make_eval(composition, words, Console(), dry_run=options.dry_run, as_json=options.json)


def _data(words: list[str]) -> int:
    parser = Parser("data")
    parser.add_argument("--rows", type=int, default=3)
    options = parser.read(words)
    if options.help:
        print(cli_help.DATA, end="")
        return 0
    if any(word.startswith("run=") for word in options.overrides):
        from prefopt.show_data import recorded, show_data

        run, folder = recorded(options.overrides)
        return show_data(run, options.rows, folder)
    from prefopt.cli_train import composed

    composition = composed(options)
    from prefopt.checks import check
    from prefopt.show_data import show_data

    check(composition.run)
    return show_data(composition.run, options.rows)


def _plan(words: list[str]) -> int:
    parser = Parser("plan")
    for name in ("--gpu", "--interconnect"):
        parser.add_argument(name)
    parser.add_argument("--mfu", type=float)
    for name in ("--rows", "--prompt-tokens", "--response-tokens"):
        parser.add_argument(name, type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.read(words)
    if options.help:
        print(cli_help.PLAN, end="")
        return 0
    from prefopt.cli_train import composed

    composition = composed(options)
    from prefopt.plan.command import plan
    from prefopt.plan.place import Wished
    from prefopt.plan.rows import Given

    return plan(
        composition.run,
        Wished(options.gpu, options.interconnect, options.mfu),
        Given(options.rows, options.prompt_tokens, options.response_tokens),
        as_json=options.json,
    )


def _rounds(words: list[str]) -> int:
    parser = Parser("rounds")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.read(words)
    if options.help:
        print(cli_help.rounds_help(options.config_dir), end="")
        return 0
    from prefopt.rounds.run import run_rounds

    return run_rounds(options.overrides, options.config_dir, options.dry_run)


def _report(words: list[str]) -> int:
    from prefopt.cli_report import report

    return report(words)


def _doctor(words: list[str]) -> int:
    from prefopt.cli_doctor import doctor

    return doctor(words)


def _export(words: list[str]) -> int:
    from prefopt.cli_export import export

    return export(words)


def _import(words: list[str]) -> int:
    from prefopt.cli_import import import_recipe

    return import_recipe(words)


def _losses(words: list[str]) -> int:
    if words and words[0] in ("-h", "--help"):
        print(cli_help.LOSSES, end="")
        return 0
    if len(words) > 1:
        raise UserError("one method at a time", f"prefopt losses {words[0]}")
    from prefopt.show_losses import show_loss, show_losses

    return show_loss(words[0]) if words else show_losses()


def _completion(words: list[str]) -> int:
    from prefopt.cli_completion import completion

    return completion(words)


if __name__ == "__main__":
    sys.exit(main())
