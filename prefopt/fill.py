"""Dataclasses filled from mappings: every key known, every value of its type, nothing converted but int to float."""

from __future__ import annotations

import copy
import math
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import Field, field, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from prefopt.errors import UserError, did_you_mean

T = TypeVar("T")


def one_of(default: str, *names: str) -> Any:
    """A string field that takes one of a few names."""
    return field(default=default, metadata={"choices": (default, *names)})


class SettingsError(UserError):
    """A key or a value that the schema refuses. key: the dotted key, by which `config.py` finds its file."""

    def __init__(self, key: str, message: str, hint: str = "") -> None:
        super().__init__(f"{key}: {message}", hint)
        self.key = key


def from_mapping(cls: type[T], mapping: Any, where: str = "") -> T:
    """The dataclass `cls` filled from plain dicts, lists and scalars. What is left out keeps its default.

    where: the dotted key of `mapping`, for messages; empty at the top.
    Nothing is converted but int to float. No key may be unknown and no value of another type.

    Raises: SettingsError with the full dotted key and the nearest valid one, or the expected type.
    """
    if not isinstance(mapping, Mapping):
        raise SettingsError(where or "the run", f"expected {_type_name(cls)}, got {_show(mapping)}")
    assert is_dataclass(cls)
    types_of = get_type_hints(cls)
    by_name = {f.name: f for f in fields(cls)}
    values = {}
    for key, value in mapping.items():
        if key not in by_name:
            raise SettingsError(_join(where, key), "there is no such key", did_you_mean(str(key), by_name))
        values[key] = _convert(types_of[key], value, _join(where, key), by_name[key].metadata.get("example", ""))
        _check_choice(by_name[key], values[key], _join(where, key))
    return cls(**values)


def known_keys(cls: type, where: str = "") -> Iterator[str]:
    """Every dotted key of a dataclass, groups included: "model", "model.path", ..., "model.lora.r".

    Free parts are not listed: names of eval sets, places in lists, a method's settings, DeepSpeed's own keys.
    """
    types_of = get_type_hints(cls)
    for f in fields(cls):
        key = _join(where, f.name)
        yield key
        inner = next((t for t in (types_of[f.name], *get_args(types_of[f.name])) if is_dataclass(t)), None)
        if inner is not None and get_origin(types_of[f.name]) not in (list, dict):
            assert isinstance(inner, type)
            yield from known_keys(inner, key)


def _convert(wanted: Any, value: Any, where: str, example: str = "") -> Any:
    if wanted is Any:
        return copy.deepcopy(value)
    origin, args = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in args:
            return None
        (inner,) = (a for a in args if a is not types.NoneType)
        return _convert(inner, value, where, example)
    if is_dataclass(wanted) and (isinstance(value, Mapping) or not example):
        assert isinstance(wanted, type)
        return from_mapping(wanted, value, where)
    if example and (hint := _literal_parts(wanted, value, where, example)):
        place, part = next((p, item) for p, item in _parts(value, where) if not isinstance(item, Mapping))
        raise SettingsError(place, f"expected {_type_name(dict)}, got {_show(part)}", hint)
    if origin is list and isinstance(value, (list, tuple)):
        return [_convert(args[0], item, f"{where}.{i}") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(args[1], item, _join(where, key)) for key, item in value.items()}
    if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise SettingsError(where, f"expected a finite number, got {_show(value)}")
        return float(value)
    # bool is an int to Python, not to a reader of `epochs: true`.
    is_plain = origin is None and not is_dataclass(wanted)
    if is_plain and isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    hint = _literal(wanted, value, where, example)
    raise SettingsError(where, f"expected {_type_name(wanted)}, got {_show(value)}", hint)


def _literal(wanted: Any, value: Any, where: str, example: str) -> str:
    """What the word would be on the command line, where a list or a mapping was wanted and something else given.

    example: `metadata={"example": ...}` of the field; FILE in it stands for what was given. Lists of text need none.
    """
    if not example and get_origin(wanted) is list and get_args(wanted)[0] is str:
        example = "[FILE]"
    if not example:
        return ""
    if isinstance(value, Mapping) and example.startswith("["):  # one that belongs into a list
        example, value = f"[{_with_file(example[1:-1], value)}]", None
    elif isinstance(value, list):  # where names were to come first
        value = value[0] if value else None
    return f"for instance '{where}={_with_file(example, value)}'"


_PLAIN = re.compile(r"[\w./:@~+-]+")
"""A word that Hydra's grammar takes without quotes."""


def _with_file(example: str, value: Any) -> str:
    """The example with what was given in its place: a word for FILE, or a group of plain keys and values as it is."""
    if isinstance(value, Mapping) and value and all(_PLAIN.fullmatch(str(part)) for part in value.values()):
        return f"{{{', '.join(f'{key}: {part}' for key, part in value.items())}}}"
    return example.replace("FILE", value if isinstance(value, str) and _PLAIN.fullmatch(value) else "FILE")


def _parts(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The dotted key and the value of every part of a list or a mapping."""
    parts = value.items() if isinstance(value, Mapping) else enumerate(value)
    yield from ((_join(where, key), part) for key, part in parts)


def _literal_parts(wanted: Any, value: Any, where: str, example: str) -> str:
    """What a list or mapping of groups of keys would be on the command line, where some part of it is no such group;
    empty where all are, or it is something else."""
    origin, args = get_origin(wanted), get_args(wanted)
    is_list = origin is list and isinstance(value, (list, tuple))
    is_named = origin is dict and isinstance(value, Mapping)
    if not (is_list or is_named) or not is_dataclass(args[-1]):
        return ""
    parts = dict(value) if is_named else dict(enumerate(value))
    if all(isinstance(part, Mapping) for part in parts.values()):
        return ""
    group = example[example.index("{", 1) : -1]  # {path: FILE} of [{path: FILE}] and of {heldout: {path: FILE}}
    shown = ", ".join(f"{f'{key}: ' if is_named else ''}{_with_file(group, part)}" for key, part in parts.items())
    return f"for instance '{where}={f'{{{shown}}}' if is_named else f'[{shown}]'}'"


def example_of(cls: type, key: str) -> str:
    """The `example` of a setting by its dotted key: `[{path: FILE}]` of data.train; empty where it has none."""
    first, _, rest = key.partition(".")
    found = next((f for f in fields(cls) if f.name == first), None) if is_dataclass(cls) else None
    if found is None:
        return ""
    if not rest:
        return str(found.metadata.get("example", ""))
    inner = get_type_hints(cls)[first]
    return example_of(inner, rest) if is_dataclass(inner) and isinstance(inner, type) else ""


def _check_choice(f: Field[Any], value: Any, where: str) -> None:
    choices = f.metadata.get("choices")
    if choices is not None and value not in choices:
        raise SettingsError(where, f"must be one of {', '.join(choices)}, not {value!r}")


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    kind = {str: "text", Mapping: "keys and values", list: "a list"}
    name = next((words for type_, words in kind.items() if isinstance(value, type_)), "")
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return f"{name} {shown}".strip()


def _type_name(wanted: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if wanted in names:
        return names[wanted]
    return "a list" if get_origin(wanted) is list else "keys and values"
