"""The code of a run's methods as digests, so that a run does not go on by another equation than it began with.

What counts is what the code does: comments, docstrings and layout change nothing. A method's digest covers its file and
what that imports of `prefopt.losses`. Nothing is imported: the files are read.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefopt import losses

_WITHOUT_MEANING = ("ctx", "kind", "type_comment", "type_ignores")


def loss_code(settings: Mapping[str, Any]) -> dict[str, str]:
    """Method to digest (16 hex digits) for every method that the settings of a loss name, its parts included."""
    return {name: _digest(f"losses.{name}") for name in sorted(set(_methods(settings)))}


def loss_semantics(settings: Mapping[str, Any]) -> dict[str, int]:
    """Method to the version of its numbers, for the same methods: what a reader compares across releases."""
    return {name: losses.semantics(name) for name in sorted(set(_methods(settings)))}


def _methods(value: Any) -> Iterator[str]:
    """Names of methods in settings: of the loss, and of whatever is listed in it by name."""
    if isinstance(value, Mapping):
        if value.get("name") in losses.names():
            yield str(value["name"])
        for item in value.values():
            yield from _methods(item)
    elif isinstance(value, list):
        for item in value:
            yield from _methods(item)


def _digest(module: str) -> str:
    found: dict[str, Any] = {}
    _collect(module, found)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _collect(module: str, found: dict[str, Any]) -> None:
    """Put a module, named from `prefopt` on, and those of `prefopt.losses` that it imports into `found`."""
    if module in found or (file := _file(module)) is None:
        return
    tree = ast.parse(file.read_bytes())
    found[module] = _meaning(tree)
    for node in ast.walk(tree):
        for name in _imported(node):
            if name.startswith("prefopt.losses"):
                _collect(name.removeprefix("prefopt."), found)


def _file(module: str) -> Path | None:
    """Where a module of `prefopt.losses` lies; None for a name that is not a module's."""
    (folder,) = losses.__path__
    names = module.split(".")[1:]
    file = Path(folder, *names).with_suffix(".py") if names else Path(folder) / "__init__.py"
    return file if file.is_file() else None


def _imported(node: ast.AST) -> list[str]:
    """The modules that a statement may import: of `from a import b`, both a and a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _meaning(node: Any) -> Any:
    """A syntax tree as plain lists: without places, docstrings and what is empty, which Python's versions add to."""
    if isinstance(node, list):
        return [_meaning(item) for item in node if not _is_text_alone(item)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: _meaning(value) for name, value in ast.iter_fields(node) if name not in _WITHOUT_MEANING}
    return [type(node).__name__, {name: value for name, value in fields.items() if value not in ([], "None")}]


def _is_text_alone(node: Any) -> bool:
    """Whether a statement is a string and nothing else: a docstring, of a function or of whatever stands above it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
