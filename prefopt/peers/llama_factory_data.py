"""LLaMA-Factory's data sets: an entry of dataset_info.json to a source, and whether its rows mean the same here.

What an entry says of columns is tried out: a row is written as LLaMA-Factory reads it (its `parser.py` and
`converter.py`), and read as prefopt reads it. Only where the two say the same is it taken over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from prefopt.data.format_alpaca import alpaca_prompt
from prefopt.data.formats import fitting
from prefopt.data.load import read_rows
from prefopt.data.recognised import Recognised
from prefopt.data.rows import Row, Unusable
from prefopt.errors import UserError
from prefopt.peers.taking import Kind, Line, Taking, shown
from prefopt.records import Message
from prefopt.settings import SourceSettings

_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_SHAREGPT = {"messages": "conversations"}
_TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
_OURS = {**_ALPACA, **_SHAREGPT, **{name: name for name in ("chosen", "rejected", "system", "history", "kto_tag")}}
"""What a column is called here that LLaMA-Factory's map names by its part."""
_READ_UNASKED = {"alpaca": ("input", "system", "history"), "sharegpt": ("system",)}
"""Columns that are read here wherever a file has them, and there only where the map names them."""
_PLACES = ("hf_hub_url", "file_name")
"""Where rows lie, in the order in which they win there too."""
_ROWS_LOOKED_AT = 64


def take_sources(t: Taking, file: Path) -> None:
    """`dataset`, `dataset_dir` and `max_samples`, with a line for every key of the entries of dataset_info.json."""
    listed = [name.strip() for name in str(t.get("dataset", "")).split(",") if name.strip()]
    index = _index(file, str(t.get("dataset_dir", "data")))
    if not listed:
        return
    sources = [_source(t, name, index.get(name, {}), t.get("max_samples")) for name in listed]
    if foreign := [name for name in listed if name not in index]:
        said = (
            f"{', '.join(foreign)}: LLaMA-Factory's own, of a dataset_info.json that was not found or has it not:"
            " put a file or a hub's name in its place, data.train=[{path: FILE}]"
        )
        t.set("data.train", sources, f"names of LLaMA-Factory's own, to be replaced: {', '.join(foreign)}")
        t.note(Kind.NONE, "dataset", said, "data.train")
    else:
        t.take("dataset", "data.train", sources, "by its dataset_info.json")
    t.note(Kind.TAKEN, "max_samples", to="data.train")
    t.note(Kind.TAKEN, "dataset_dir", to="data.train")


def _index(file: Path, folder: str) -> dict[str, Any]:
    """dataset_info.json, sought beside the working directory and above the file; empty where there is none."""
    for root in (Path(), *file.absolute().parents):
        found = root / folder / "dataset_info.json"
        if found.is_file():
            try:
                index = json.loads(found.read_text(encoding="utf-8"))
            except ValueError:
                return {}
            if isinstance(index, dict):
                return {k: {**v, "folder of it": str(found.parent)} for k, v in index.items() if isinstance(v, dict)}
    return {}


_Told = tuple[Kind, str, str]
"""Of a key of an entry: what became of it, the key of the source that it became, and what to know."""


def _source(t: Taking, name: str, about: Mapping[str, Any], limit: Any) -> dict[str, Any]:
    """The source of one entry; `about` is empty where there is none, and `name` then stands for the path."""
    source: dict[str, Any] = {"path": name}
    told: dict[str, _Told] = {}
    if place := next((key for key in _PLACES if about.get(key)), None):
        source["path"] = f"{about['folder of it']}/{about[place]}" if place == "file_name" else str(about[place])
        told[place] = Kind.TAKEN, "path", ""
    for key, ours in (("split", "split"), ("subset", "name")):
        if about.get(key):
            source[ours] = about[key]
            told[key] = Kind.TAKEN, ours, ""
    if about.get("num_samples"):
        source["limit"] = int(about["num_samples"])
        told["num_samples"] = Kind.OTHER, "limit", "the first rows, where LLaMA-Factory draws so many"
    if limit is not None:
        source["limit"] = min(int(limit), source.get("limit", int(limit)))
    if about:
        told |= _told_of_columns(t, name, about, source)
    for key, value in about.items():
        if key != "folder of it":
            kind, to, said = told.get(key, (Kind.NONE, "", "nothing is made of it"))
            t.lines.append(Line(kind, f"{name}.{key}", shown(value), f"data.train.{to}" if to else "", said))
    return source


def _told_of_columns(t: Taking, name: str, about: Mapping[str, Any], source: dict[str, Any]) -> dict[str, _Told]:
    """What becomes of formatting, ranking, columns and tags: all of them or none. Sets `source["format"]`."""
    keys = [key for key in ("formatting", "ranking", "columns", "tags") if key in about]
    form = str(about.get("formatting", "alpaca"))
    given = about["columns"] if isinstance(about.get("columns"), Mapping) else None
    columns = {k: str(v) for k, v in (given or {}).items() if v} or dict(_ALPACA if form == "alpaca" else _SHAREGPT)
    if about.get("ranking") and given is None:
        columns |= {"chosen": "chosen", "rejected": "rejected"}
    found = _read_alike(form, columns, about)
    if found is None:
        why = _mend(form, columns, about)
        t.needed.append(f"{name}: its rows are not read as LLaMA-Factory reads them: {why}")
        return dict.fromkeys(keys, (Kind.NONE, "", f"lost: {why}"))
    source["format"] = found.format.name
    to = f"format={found.format.name}"
    told = dict.fromkeys(keys, (Kind.TAKEN, to, ""))
    read_here = _READ_UNASKED.get(form, ())
    if given is not None and (more := sorted(_filled(source) & set(read_here) - set(columns.values()))):
        said = f"{', '.join(more)} of the file is read too; LLaMA-Factory leaves out what the map does not name"
        told["columns"] = Kind.OTHER, to, said
    return told


def _mend(form: str, columns: Mapping[str, str], about: Mapping[str, Any]) -> str:
    """What to do about rows that are not read alike."""
    read = {part: column for part, column in columns.items() if part in _OURS}
    foreign = [part for part in columns if part not in _OURS]
    left = f"{', '.join(foreign)} cannot be taken over, for text alone is trained on" if foreign else ""
    if foreign and _read_alike(form, read, about) is not None:
        return left
    renamed = [f"{column} to {_OURS[part]}" for part, column in read.items() if column != _OURS[part]]
    what = f"rename its columns, {', '.join(renamed)}" if renamed else "write them in a format of docs/howto/data.md"
    return f"before you train, {what}{f'; {left}' if left else ''}"


def _read_alike(form: str, columns: Mapping[str, str], about: Mapping[str, Any]) -> Recognised | None:
    """The format that reads a row as LLaMA-Factory does by this map of columns; None where none does."""
    if form not in ("alpaca", "sharegpt") or any(key not in _OURS for key in columns):
        return None
    tags = about["tags"] if isinstance(about.get("tags"), Mapping) else _TAGS
    says = {key: str(tags.get(key)) for key in _TAGS}

    def turn(role: str, text: str) -> dict[str, str]:
        return {says["role_tag"]: says[f"{role}_tag"], says["content_tag"]: text}

    is_pair, is_alpaca = bool(about.get("ranking")), form == "alpaca"
    texts = {key: f"the {key}" for key in columns}
    values: dict[str, Any] = {**texts, "kto_tag": True}
    if is_alpaca:
        values["history"] = [["a question", "an answer"]]
        answers = [texts.get("chosen"), texts.get("rejected")] if is_pair else [texts.get("response")]
        asked = {_OURS[key]: values[key] for key in columns if key in ("prompt", "query", "system", "history")}
    else:
        answers = ["the chosen", "the rejected"] if is_pair else ["the answer"]
        values["messages"] = [turn("user", "the question"), *([] if is_pair else [turn("assistant", "the answer")])]
        values |= {key: turn("assistant", texts[key]) for key in ("chosen", "rejected") if key in texts}
        asked = {"instruction": "the question", **({"system": texts["system"]} if "system" in columns else {})}
    row = Row(form, 1, {column: values[key] for key, column in columns.items()})
    try:
        prompt: tuple[Message, ...] = alpaca_prompt(asked)
        found = fitting([row])
        example = None if found is None else found.example(row, frozenset({"labels"} if "kto_tag" in columns else ()))
    except Unusable:
        return None
    if example is None or not example.is_chat or example.prompt != prompt:
        return None
    is_labelled = "kto_tag" not in columns or example.candidates[0].label is True
    return found if [c.text for c in example.candidates] == answers and is_labelled else None


def _filled(source: Mapping[str, Any]) -> frozenset[str]:
    """The columns that hold something in the first rows of a local file; none where it is not here, or not readable."""
    path = str(source["path"])
    if not Path(path).is_file():
        return frozenset()
    try:
        rows = list(islice(read_rows(SourceSettings(path)), _ROWS_LOOKED_AT))
    except UserError:  # which the run will say
        return frozenset()
    return frozenset(column for row in rows for column, value in row.value.items() if value)
