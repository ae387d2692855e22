"""What may stand at the end of a command line: commands, options, groups, recipes, keys, names of choices.

Taken from the help texts, the folders of recipes and the schema, so that whatever is added there is completed too.
Nothing heavy is imported: a key press asks for this.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

from prefopt import cli_help
from prefopt.errors import UserError
from prefopt.fill import known_keys
from prefopt.recipe_files import (
    EVAL_TREE,
    PAIRS_TREE,
    ROUNDS_TREE,
    START_GROUPS,
    TRAIN_TREE,
    Tree,
    choices,
    search_path,
)

SHELLS = ("bash", "zsh", "fish")
_TREES = {
    "train": TRAIN_TREE,
    "data": TRAIN_TREE,
    "plan": TRAIN_TREE,
    "pairs": PAIRS_TREE,
    "eval": EVAL_TREE,
    "rounds": ROUNDS_TREE,
}
_VERBS = {"sweep": ("status", "resume", "retry", "cancel"), "completion": SHELLS}


def candidates(line: str) -> list[str]:
    """The whole words that the last word of `line` may become; sorted, without repeats.

    line: the command line up to the cursor, `prefopt` included. A word that ends in "=" or "." is not finished. Where
    nothing is known, as for files, there are none, and the shell completes a path.
    """
    words = _words(line)
    done, last = words[1:-1], words[-1]
    return sorted({word for word in _offered(done, last) if word.startswith(last) and word != last})


def _words(line: str) -> list[str]:
    """The words of a line; the last one is empty after a space. A quote that is still open is taken off."""
    for closing in ("", '"', "'"):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        return words if line and not line[-1].isspace() else [*words, ""]
    return [*line.split(), ""]


def _offered(done: list[str], last: str) -> Iterable[str]:
    if not done:
        return (*_commands(), "--version", "--help")
    command = done[0]
    if last.startswith("-"):
        return _options(command)
    if command == "losses":
        from prefopt.losses import names

        return names() if len(done) == 1 else ()
    if command in _VERBS:
        return _VERBS[command] if len(done) == 1 else ()
    tree = _TREES.get(command)
    if tree is None:
        return ()
    return _of_tree(command, tree, done, last)


def _of_tree(command: str, tree: Tree, done: list[str], last: str) -> Iterator[str]:
    config_dir = next((Path(after) for word, after in pairwise(done) if word == "--config-dir"), None)
    try:
        folders = search_path(config_dir, tree)
        started_by = search_path(config_dir)
    except UserError:  # a folder that is being typed
        folders, started_by = search_path(None, tree), search_path()
    group, is_choice, _ = last.partition("=")
    start_groups = START_GROUPS if command == "train" else ()
    if is_choice and group in (*tree.groups, *start_groups):
        found = choices(group, started_by if group in start_groups else folders)
        yield from (f"{group}={name}" for name in found)
    elif is_choice:
        yield from (f"{group}={value}" for value in _values(tree, group))
    else:
        yield from (f"{name}=" for name in (*tree.groups, *start_groups))
        yield from _next_part(_keys(tree, done), last)


def _next_part(keys: Iterable[str], last: str) -> Iterator[str]:
    """Keys as far as their next dot, so that a hundred settings are not offered at once."""
    keys = set(keys)
    for key in keys:
        if key.startswith(last):
            part, dot, _ = key[len(last) :].partition(".")
            word = last + part
            if dot:
                yield word + "."
            elif not any(other.startswith(f"{word}.") for other in keys):
                yield f"{word}="


def _keys(tree: Tree, done: list[str]) -> list[str]:
    """The keys of a command's schema, and those of the choices that the line names."""
    named = {group: name for group, is_choice, name in (word.partition("=") for word in done) if is_choice}
    if tree is TRAIN_TREE:
        from prefopt.losses import loss_class, names
        from prefopt.settings import RunSettings

        method = named.get("loss", "")
        of_loss = [f.name for f in fields(loss_class(method))] if method in names() else []
        return [*known_keys(RunSettings), *(f"loss.{name}" for name in of_loss)]
    if tree is PAIRS_TREE:
        from prefopt.pairs.registry import KINDS, stage_class
        from prefopt.pairs.registry import names as stages
        from prefopt.pairs.settings import PairsSettings

        of_stages = [
            f"{kind}.{f.name}"
            for kind in KINDS
            if named.get(kind) in stages(kind)
            for f in fields(stage_class(kind, named[kind]))
        ]
        return [*known_keys(PairsSettings), *of_stages]
    if tree is EVAL_TREE:
        from prefopt.evaluate.registry import measure_class, measure_names
        from prefopt.evaluate.settings import EvalSettings

        measure = named.get("measure", "")
        of_measure = [f.name for f in fields(measure_class(measure))] if measure in measure_names() else []
        return [*known_keys(EvalSettings), *(f"measure.{name}" for name in of_measure)]
    return ["rounds", "seed", "dir", "name", "inputs.NAME"]


def _values(tree: Tree, key: str) -> Iterator[str]:
    """The names that a key of a run takes, where it takes names, and true and false."""
    if tree is not TRAIN_TREE:
        return
    from typing import get_type_hints

    from prefopt.settings import RunSettings

    cls: type = RunSettings
    *parents, last = key.split(".")
    for parent in parents:
        hint = get_type_hints(cls).get(parent)
        inner = [one for one in (hint, *getattr(hint, "__args__", ())) if hasattr(one, "__dataclass_fields__")]
        if not inner:
            return
        cls = inner[0]
    field = getattr(cls, "__dataclass_fields__", {}).get(last)
    if field is not None:
        yield from field.metadata.get("choices", ())
        if get_type_hints(cls)[last] is bool:
            yield from ("true", "false")


def _commands() -> list[str]:
    """Those that `prefopt --help` lists."""
    listed = cli_help.MAIN.partition("commands:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  (\w+) ", listed, re.M)


def _options(command: str) -> list[str]:
    """Those that the command's own help lists."""
    text = getattr(cli_help, command.upper(), "")
    return ["--help", *re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)]


def script(shell: str) -> str:
    """The lines that a shell reads at its start.

    Raises: KeyError for a shell that is none of `SHELLS`.
    """
    return {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[shell]


_BASH = r"""# prefopt for bash: source <(prefopt completion bash)
_prefopt() {
  local line="${COMP_LINE:0:COMP_POINT}" word cut
  word="${line##*[[:space:]]}"
  # Bash takes "loss=" and "dpo" for two words and puts the answer in place of the second one.
  cut="${word%"${word##*[=:]}"}"
  [[ $COMP_WORDBREAKS == *=* ]] || cut=""
  local IFS=$'\n'
  COMPREPLY=($(prefopt completion --line "$line" 2>/dev/null))
  COMPREPLY=("${COMPREPLY[@]#"$cut"}")
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=.] ]]; then compopt -o nospace 2>/dev/null; fi
  return 0
}
complete -o default -o bashdefault -F _prefopt prefopt
"""

_ZSH = r"""#compdef prefopt
# prefopt for zsh: source <(prefopt completion zsh), after compinit
_prefopt() {
  local -a found open closed
  found=("${(@f)$(prefopt completion --line "${LBUFFER}" 2>/dev/null)}")
  found=(${found:#})
  if (( ! ${#found} )); then _files; return; fi
  open=(${(M)found:#*[=.]})
  closed=(${found:#*[=.]})
  (( ${#open} )) && compadd -Q -S '' -- $open
  (( ${#closed} )) && compadd -Q -- $closed
}
compdef _prefopt prefopt
"""

_FISH = r"""# prefopt for fish: prefopt completion fish > ~/.config/fish/completions/prefopt.fish
complete -c prefopt -a '(prefopt completion --line (commandline --cut-at-cursor --current-process) 2>/dev/null)'
"""
