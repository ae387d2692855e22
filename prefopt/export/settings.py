"""What `prefopt export` may be told, and how its words are read. Nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.fill import from_mapping, one_of


@dataclass(frozen=True)
class GgufSettings:
    """A GGUF file besides. file: where; empty: none. converter: llama.cpp's script; None: the one on the PATH."""

    file: str = ""
    converter: str | None = None

    def __post_init__(self) -> None:
        if self.converter is not None and not self.file:
            raise ValueError("gguf.converter has no effect without gguf=FILE")


@dataclass(frozen=True)
class ExportSettings:
    """What becomes of the model.

    out: the new folder. step: take the weights of this checkpoint of the run instead of its final model. merge: put
    adapters into the weights they belong to; None: yes where there are any. dtype: of the weights that are written:
    stored (bfloat16 where the model, or the one under the adapters, is kept so, else float32), float32 or bfloat16.
    push: USER/NAME on the hub. private: whether a repository that is made for it is; None: yes.
    """

    out: str = ""
    step: int | None = None
    merge: bool | None = None
    dtype: str = one_of("stored", "float32", "bfloat16")
    push: str | None = None
    private: bool | None = None
    gguf: GgufSettings = field(default_factory=GgufSettings)

    def __post_init__(self) -> None:
        if self.step is not None and self.step < 1:
            raise ValueError(f"step must be 1 or more, not {self.step}")
        if self.push is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.push):
            raise ValueError(f"push must be USER/NAME, not {self.push!r}")
        if self.private is not None and self.push is None:
            raise ValueError("private has no effect without push=USER/NAME")
        if self.merge is False and self.dtype != "stored":
            raise ValueError(f"dtype={self.dtype} has no effect with merge=false: adapters are copied as they are")
        if self.merge is False and self.gguf.file:
            raise ValueError("gguf needs a whole model: leave merge=false out")


def read_words(words: list[str]) -> tuple[str, ExportSettings]:
    """RUN or MODEL, and the settings, from the words of the command.

    Raises: UserError for a missing folder, a key that there is not, or a value that the settings refuse.
    """
    import yaml

    for word in words:
        key, _, path = word.partition("=")
        if key in ("run", "model") and path:
            raise UserError(f"export: {word}: the model is named without a key", f"prefopt export {path} out=FOLDER")
    sources = [word for word in words if "=" not in word]
    if len(sources) != 1:
        said = "nothing is named" if not sources else f"one model at a time, not {sources[0]} and {sources[1]}"
        raise UserError(f"export: {said}", "prefopt export runs/RUN out=FOLDER")
    values: dict[str, Any] = {}
    gguf: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if key == "gguf":
            gguf["file"] = text
        elif key.startswith("gguf."):
            gguf[key.removeprefix("gguf.")] = value
        else:
            values[key] = text if key in ("out", "push") else value
    if gguf:
        values["gguf"] = gguf
    try:
        settings = from_mapping(ExportSettings, values)
    except ValueError as error:
        raise UserError(f"export: {error}") from None
    _check_out(settings.out)
    return sources[0], settings


def _check_out(out: str) -> None:
    if not out:
        raise UserError("export: out is not set", "out=FOLDER, one that is not there yet")
    folder = Path(out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"out={out}: there is something already", "out=FOLDER, one that is not there yet")
