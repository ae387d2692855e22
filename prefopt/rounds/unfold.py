"""A loop to the commands of all its rounds, in order, every placeholder filled: a pure function, and nothing starts.

Whatever a word may not name - what is not there, what comes later - is found here, because all of it is filled here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefopt.errors import UserError, did_you_mean
from prefopt.rounds.placeholders import Unfilled, Value, fill, fill_word
from prefopt.rounds.settings import COMMANDS, Loop, Step


@dataclass(frozen=True)
class Command:
    """A step of one round. place: "before", "round-2" or "after-3". round: None for `before` and `after`.

    words: as on the command line of `run`, without its folder. reads: paths that earlier steps write.
    """

    step: Step
    place: str
    round: int | None
    folder: Path
    words: tuple[str, ...]
    reads: tuple[str, ...]

    @property
    def where(self) -> str:
        """Names it in rounds.json: "round-2/train"."""
        return f"{self.place}/{self.step.name}"

    @property
    def label(self) -> str:
        """Names it in messages: "round 2, train"."""
        return f"{self.place.replace('-', ' ')}, {self.step.name}"

    @property
    def log(self) -> Path:
        """Where its output is kept, over all starts."""
        return self.folder.with_name(f"{self.folder.name}.log")


def unfold(loop: Loop) -> list[Command]:
    """Every command of the loop, in the order in which they run.

    Raises: UserError that names recipe, step and word where a placeholder cannot be filled, and for an input that was
        given and that no word uses.
    """
    used: set[str] = set()
    commands = list(_Unfolding(loop, used).commands())
    for name in sorted(loop.given):
        if f"inputs.{name}" not in used:
            raise UserError(f"inputs.{name} has no effect: no step of {loop.shown} uses it", "leave it out")
    return commands


class _Unfolding:
    def __init__(self, loop: Loop, used: set[str]) -> None:
        self.loop = loop
        self.used = used
        self.scope: dict[str, Value] = {"seed": Value(str(loop.settings.seed))}
        for name, value in loop.settings.inputs.items():
            text = tuple(value) if isinstance(value, list) else _text(value)
            self.scope[f"inputs.{name}"] = Value(text)

    def commands(self) -> Iterator[Command]:
        settings, loop = self.loop.settings, self.loop
        yield from self._of(loop.before, "before", None)
        carried = {name: self._carry(name, "first", carry.first) for name, carry in settings.carry.items()}
        for number in range(1, settings.rounds + 1):
            for step in loop.steps:  # of the round before: a word that names one would read old files
                for part in COMMANDS[step.run].gives:
                    self.scope.pop(f"{step.name}.{part}", None)
            self.scope.update(carried, round=Value(str(number)))
            yield from self._of(loop.steps, f"round-{number}", number)
            carried = {name: self._carry(name, "then", carry.then) for name, carry in settings.carry.items()}
        self.scope.update(carried)
        # By the number of rounds, so that a loop which goes on with more rounds ends in folders of their own.
        yield from self._of(loop.after, f"after-{settings.rounds}", None)

    def _of(self, steps: tuple[Step, ...], place: str, number: int | None) -> Iterator[Command]:
        for step in steps:
            folder = self.loop.folder / place / step.name
            words: list[str] = []
            reads: set[str] = set()
            for word in step.words:
                try:
                    filled = fill_word(word, self.scope, self.used)
                except Unfilled as error:
                    raise self._refused(error, f"step {step.name}, word {word!r}", step) from None
                words += [str(value.text) for value in filled]
                reads.update(*(value.made for value in filled))
            yield Command(step, place, number, folder, tuple(words), tuple(sorted(reads)))
            for part, file in COMMANDS[step.run].gives.items():
                path = str(folder / file)
                self.scope[f"{step.name}.{part}"] = Value(path, frozenset({path}))

    def _carry(self, name: str, key: str, text: str) -> Value:
        try:
            return fill(text, self.scope, self.used)
        except Unfilled as error:
            raise self._refused(error, f"carry.{name}.{key}, {text!r}", None) from None

    def _refused(self, error: Unfilled, where: str, step: Step | None) -> UserError:
        why, hint = (error.why, error.hint) if error.why else self._why(error.name, step)
        return UserError(f"{self.loop.shown}: {where}: {{{error.name}}}: {why}", hint)

    def _why(self, name: str, here: Step | None) -> tuple[str, str]:
        """Why a name has no value where it stands, and what to do."""
        loop = self.loop
        head, _, part = name.partition(".")
        if head == "inputs":
            return "the recipe has no such input", did_you_mean(part, loop.settings.inputs)
        named = next((step for step in loop.all_steps if step.name == head), None)
        if named is not None:
            gives = COMMANDS[named.run].gives
            if part not in gives:
                return f"a step that runs {named.run} gives {' and '.join(f'{{{head}.{p}}}' for p in gives)}", ""
            carry = f"a value of the round before is carried: carry: {{NAME: {{first: ..., then: '{{{name}}}'}}}}"
            return ("a step cannot read itself" if named is here else f"step {head} comes later"), carry
        if name == "round" or name in loop.settings.carry:
            return "it has a value in rounds, and the first one comes later", ""
        steps = [f"{step.name}.{part}" for step in loop.all_steps for part in COMMANDS[step.run].gives]
        return "there is no such placeholder", did_you_mean(name, [*self.scope, *steps, *loop.settings.carry, "round"])


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def assigned(key: str, value: object) -> str:
    """`key=value` as Hydra's grammar reads it, quoted where the value needs it."""
    text = str(value)
    if re.fullmatch(r"[\w./+-]+", text):
        return f"{key}={text}"
    # In that grammar a backslash stands for itself, but before a quote, where it and the quote are escaped.
    return f"{key}='" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text) + "'"


def overrides_of(command: Command, loop: Loop) -> list[str]:
    """The words of a command with its folder and, where its own words give none, a name."""
    name = assigned("name", f"{loop.settings.name}-{command.place}-{command.step.name}")
    return [name, *command.words, assigned(COMMANDS[command.step.run].folder_key, command.folder)]


def words_of(command: Command, loop: Loop, config_dir: Path | None) -> list[str]:
    """All that follows `prefopt` when a command is run."""
    config = [] if config_dir is None else ["--config-dir", str(config_dir)]
    return [command.step.run, *config, *overrides_of(command, loop)]
