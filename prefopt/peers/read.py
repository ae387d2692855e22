"""A peer's file: read, and told by its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.errors import UserError
from prefopt.peers import axolotl, llama_factory, trl
from prefopt.peers.taking import Taking


@dataclass(frozen=True)
class Peer:
    """A trainer whose files are understood. marks: keys that it alone has. take: turns a file into settings."""

    name: str
    marks: frozenset[str]
    take: Callable[[Taking, Path], None]


PEERS = (
    Peer("axolotl", axolotl.MARKS, axolotl.take),
    Peer("LLaMA-Factory", llama_factory.MARKS, llama_factory.take),
    Peer("TRL", trl.MARKS, trl.take),
)
"""In the order in which they are asked: TRL's keys are those of transformers, which the others have too."""


def read(file: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises: UserError where it is missing, is no YAML, or holds something else than keys and values.
    """
    import yaml

    try:
        mapping = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(mapping, dict) or not mapping:
        raise UserError(f"{file}: holds no keys and values", "a configuration of TRL, LLaMA-Factory or axolotl")
    return {str(key): value for key, value in mapping.items()}


def recognise(mapping: Mapping[str, Any], file: Path) -> Peer:
    """Whose file it is: the peer with the most keys of its own.

    Raises: UserError where it is nobody's, or prefopt's own.
    """
    if "defaults" in mapping and not mapping.keys() & {"base_model", "model_name_or_path"}:
        raise UserError(f"{file}: is a recipe of prefopt already", f"prefopt train recipe={file.stem}")
    marks = {peer: len(peer.marks & mapping.keys()) for peer in PEERS}
    best = max(PEERS, key=lambda peer: marks[peer])
    if not marks[best]:
        raise UserError(
            f"{file}: is no configuration of TRL, LLaMA-Factory or axolotl that can be told by its keys"
            f" ({', '.join(list(mapping)[:5])})",
            "the YAML file that their own command takes",
        )
    return best
