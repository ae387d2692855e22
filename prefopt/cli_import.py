"""The words of `prefopt import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.cli_words import Parser
from prefopt.errors import UserError, did_you_mean

HELP = """\
usage: prefopt import FILE [out=recipes/recipe/NAME.yaml] [processes=N] [rows=N] [trainer=NAME]

A recipe from the YAML file of TRL's command line (the alignment-handbook's and SimPO's too), LLaMA-Factory or axolotl.
A table shows every key: taken over, of another meaning here (gamma!), without an equivalent, unknown, without effect;
and the peer's own defaults, which are written down because ours differ. The recipe composes, or nothing is written.

  prefopt import recipes/zephyr-7b-beta/dpo/config_full.yaml out=recipes/recipe/my_zephyr.yaml processes=8
  prefopt import llama3_lora_dpo.yaml

keys:
  out         the recipe; left out: recipes/recipe/ and the file's own name
  processes   on how many (GPUs) the file was run, by which its batch size is multiplied; 1
  rows        of the training data, by which a number of warm-up steps becomes a share
  trainer     which of TRL's the file is for, where it does not tell: dpo, cpo, simpo, orpo, kto, sft, reward

exit codes: 0 written, 2 misuse, a file that is not understood, a method that has no equivalent
"""
KEYS = ("out", "processes", "rows", "trainer")


def import_recipe(words: list[str]) -> int:
    """Run the command; its exit code.

    Raises: UserError for words that it has not, and as `prefopt.peers.command.import_file`.
    """
    options = Parser("import").read(words)
    if options.help or not words:
        print(HELP, end="")
        return 0
    if options.config_dir:
        raise UserError("--config-dir: an import reads one file; out= says where the recipe goes", "leave it out")
    files = [word for word in options.overrides if "=" not in word]
    if len(files) != 1:
        said = "no file is named" if not files else f"one file at a time, not {files[0]} and {files[1]}"
        raise UserError(f"import: {said}", "prefopt import config.yaml")
    given: dict[str, Any] = {}
    for word in options.overrides:
        key, equals, value = word.partition("=")
        if not equals:
            continue
        if key not in KEYS:
            raise UserError(f"import: there is no key {key!r}", did_you_mean(key, KEYS))
        given[key] = _whole(key, value) if key in ("processes", "rows") else value
    out = Path(given.pop("out")) if given.get("out") else None
    from rich.console import Console

    from prefopt.peers.command import import_file
    from prefopt.peers.taking import Options

    try:
        chosen = Options(**given)
    except ValueError as error:
        raise UserError(f"import: {error}") from None
    return import_file(Path(files[0]), out, chosen, Console())


def _whole(key: str, text: str) -> int:
    if not text.isdigit():
        raise UserError(f"import: {key} must be a whole number, not {text!r}")
    return int(text)
