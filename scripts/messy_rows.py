"""Files of rows as nobody should write them, each a function of a random generator: what the fuzzing of rows shares.

`scripts/fuzz_rows.py` sends many of them through the real preparation, `tests/data/test_data_fuzz.py` some that
hypothesis chooses.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

Row = dict[str, Any]


class Written(NamedTuple):
    """A file, and how many rows it holds; None where its bytes were damaged and nobody can say."""

    path: Path
    num_rows: int | None


_SAID = "the sky is blue who why yes no please 你好 naïve 🙂 مرحبا x 42 <|im_end|> <s> </s>".split()  # noqa: SIM905
WORDS = (*_SAID, "\n\n", "\t", "", "\u2028", "\u0085", "\ufeff")


def text(random: Random) -> str:
    """A few words, some of which spell special tokens or lines."""
    return " ".join(random.choice(WORDS) for _ in range(random.randint(1, 12)))


def turns(random: Random, last: str) -> list[Row]:
    """A conversation that ends with the turn of `last`."""
    roles = ["user", "assistant"] * random.randint(0, 2) + (["user"] if last == "user" else ["user", "assistant"])
    return [{"role": role, "content": text(random)} for role in roles]


def _hh(random: Random) -> Row:
    start = f"\n\nHuman: {text(random)}\n\nAssistant:"
    return {"chosen": f"{start} {text(random)}", "rejected": f"{start} {text(random)}"}


def _sharegpt(random: Random) -> Row:
    said = [{"from": "human", "value": text(random)}]
    return {
        "conversations": said,
        "chosen": {"from": "gpt", "value": text(random)},
        "rejected": {"from": "gpt", "value": text(random)},
        "y_ref": text(random),
    }


def _ranked(random: Random) -> Row:
    count = random.randint(1, 5)
    return {
        "prompt": text(random),
        "responses": [text(random) for _ in range(count)],
        "scores": [random.choice([0, 1, 0.5, random.random()]) for _ in range(count)],
        "y_ref": text(random),
    }


def _examples(random: Random) -> Row:
    candidates = [
        {"text": text(random), "score": float(place), "label": place > 0, "margins": [0.1, 0.2]}
        for place in range(random.randint(1, 4))
    ]
    return {
        "prompt": turns(random, "user"),
        "candidates": candidates,
        "is_chat": True,
        "id": "a",
        "target": text(random),
    }


def _trl(random: Random) -> Row:
    return {
        "prompt": text(random),
        "chosen": text(random),
        "rejected": text(random),
        "score_chosen": 1.0,
        "score_rejected": 0.25,
        "margin": 0.5,
        "y_ref": text(random),
    }


def _trl_chat(random: Random) -> Row:
    front = turns(random, "user")
    answers = ([*front, {"role": "assistant", "content": text(random)}] for _ in range(2))
    return dict(zip(("chosen", "rejected"), answers))


def _judged(random: Random) -> Row:
    return {"input": text(random), "output_1": text(random), "output_2": text(random), "label": random.randint(0, 2)}


def _labels(random: Random) -> Row:
    return {"prompt": text(random), "completion": text(random), "label": random.random() < 0.5, "score": 1}


def _alpaca(random: Random) -> Row:
    history = [[text(random), text(random)] for _ in range(random.randint(0, 2))]
    return {"instruction": text(random), "input": text(random), "output": text(random), "history": history}


def _alpaca_pairs(random: Random) -> Row:
    row = _alpaca(random)
    chosen = row.pop("output")
    return {**row, "chosen": chosen, "rejected": text(random), "system": text(random), "y_ref": text(random)}


FORMATS: dict[str, Callable[[Random], Row]] = {
    "examples": _examples,
    "ranked": _ranked,
    "labels": _labels,
    "labels of messages": lambda random: {"messages": turns(random, "assistant"), "label": random.random() < 0.5},
    "labels of alpaca": lambda random: {**_alpaca(random), "kto_tag": random.random() < 0.5},
    "sharegpt": _sharegpt,
    "sharegpt of messages": lambda random: {
        "messages": turns(random, "user"),
        "chosen": {"role": "assistant", "content": text(random)},
        "rejected": text(random),
    },
    "swift": lambda random: {"messages": turns(random, "assistant"), "rejected_response": text(random)},
    "alpaca pairs": _alpaca_pairs,
    "hh": _hh,
    "trl": _trl,
    "trl of conversations": _trl_chat,
    "trl without prompt": lambda random: {"chosen": f"so it is {text(random)}", "rejected": f"so it is {text(random)}"},
    "judged": _judged,
    "sft": lambda random: {"prompt": text(random), "completion": text(random)},
    "sft of messages": lambda random: {"messages": turns(random, "assistant")},
    "alpaca": _alpaca,
}
"""A row of each format that prefopt recognises, with the columns that some methods ask for besides."""


def _nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, -0.0, math.nan, math.inf, -math.inf, 10**30, -(10**400), 2**63, 1e308, -1e308),
    *(
        "",
        " ",
        "\t\n ",
        "\x00",
        "a\x00b",
        "\u2028",
        "\ud800",
        "x\udfff",
        "\ufeff",
        "\r\n",
        "\r",
        "1e5",
        "NaN",
        "true",
        "0",
    ),
    *(
        "<|im_end|>",
        "<|im_end|>" * 3,
        "<s>",
        "<s><s>",
        "</s>",
        "\n\nHuman: a",
        "\n\nHuman: a\n\nAssistant: b",
        "e" * 5000,
    ),
    *([], {}, [[]], [None], [""], ["a", 1], [{}], {"a": {"b": [1]}}, [[["a"]]], _nested(200), [math.nan], [1, None]),
    *([{"role": "user"}], [{"role": "user", "content": None}], [{"role": "king", "content": "a"}], {"role": "user"}),
    [{"role": "user", "content": [{"type": "image"}]}],
    [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "value": 3}]}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    [{"role": "assistant", "content": "b"}],
    [{"from": "gpt", "value": "b", "tool_calls": [1]}],
)


def _places(value: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Every (container, key) of a row."""
    found = [] if found is None else found
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        _places(inner, found)
    return found


def spoil(random: Random, row: Row, huge: bool = False) -> Row:
    """A copy of `row` with one thing wrong, or strange and right. huge: a text of ten megabytes."""
    row = json.loads(json.dumps(row))
    places = _places(row)
    if not places or random.random() < 0.05:
        return random.choice([{}, FORMATS[random.choice(list(FORMATS))](random)])
    container, key = random.choice(places)
    if huge:
        column = random.choice(list(row))
        row[column] = random.choice(["word ", "w", "\U0001f642", "\n"]) * 10_000_000
        row[column] = row[column][:10_000_000]
        return row
    change = random.choice(("replace", "replace", "replace", "drop", "wrap", "insert", "add", "rename", "equal"))
    if change == "replace":
        container[key] = random.choice(ODD)
    elif change == "drop":
        del container[key]
    elif change == "wrap":
        container[key] = random.choice([[container[key]], {"value": container[key]}, [container[key]] * 2])
    elif change == "insert" and isinstance(container[key], str):
        place = random.randint(0, len(container[key]))
        container[key] = container[key][:place] + str(random.choice(ODD)) + container[key][place:]
    elif change == "add":
        names = ("label", "score", "prompt", "scores", "y_ref", "candidates", "", "a.b", "system")
        half = random.random() < 0.01  # of a surrogate pair
        row["\ud83d" if half else random.choice(names)] = random.choice(ODD)
    elif change == "rename":
        first = random.choice(list(row))
        row[random.choice([first.upper(), f" {first}", first + "s", "text"])] = row.pop(first)
    elif change == "equal":
        row["rejected"] = row.get("chosen")
    return row


def make_rows(random: Random, count: int, num_huge: int = 0) -> list[Row]:
    """Rows of one format, a part of them spoilt, the first ones whole so that the format is recognised mostly."""
    make = FORMATS[random.choice(list(FORMATS))]
    share = random.choice([0.0, 0.1, 0.5, 0.9])
    rows = [make(random) for _ in range(count)]
    for place in range(count):
        while random.random() < share:
            rows[place] = spoil(random, rows[place])
    for place in random.sample(range(count), min(num_huge, count)):
        rows[place] = spoil(random, make(random), huge=True)
    return rows


CONTAINERS = ("jsonl", "jsonl", "jsonl", "json", "csv", "parquet", "jsonl.gz", "json.gz", "csv.gz")


def write_rows(random: Random, folder: Path, rows: list[Row], container: str | None = None) -> Written:
    """The rows in a file of one kind or another; of one in eight the bytes are damaged too."""
    container = container or random.choice(CONTAINERS)
    path = folder / f"rows.{container}"
    if container == "parquet":
        path.write_bytes(_parquet(rows))
        count = len(rows)
    else:
        kind = container.removesuffix(".gz")
        lines = list(_csv(rows) if kind == "csv" else _jsonl(random, rows) if kind == "jsonl" else [json.dumps(rows)])
        content = _laid_out(random, lines, kind)
        path.write_bytes(gzip.compress(content, 1) if container.endswith(".gz") else content)
        count = len(rows)
    if random.random() < 0.125:
        return _damage(random, path, rows)
    return Written(path, count)


def _jsonl(random: Random, rows: list[Row]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row)
        if random.random() < 0.02:
            yield random.choice(["", "  ", "\t"])


def _laid_out(random: Random, lines: list[str], kind: str) -> bytes:
    """Lines as a file: with and without BOM, CR LF, and a line break at the end."""
    content = b"" if kind == "csv" else random.choice([b"\n", b"\n", b"\r\n"]).join(line.encode() for line in lines)
    if kind == "csv":
        content = "".join(lines).encode()
    content = random.choice([b"", b"", b"", b"\xef\xbb\xbf"]) + content
    return content + random.choice([b"\n", b""] if kind != "csv" else [b""])


def _csv(rows: list[Row]) -> Iterator[str]:
    columns = list(dict.fromkeys(_clean(column) for row in rows for column in row)) or ["prompt"]
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        cells = {_clean(column): _cell(value) for column, value in row.items()}
        # Of a single empty cell csv makes a blank line, which is no row.
        writer.writerow([cells.get(column, "") or ("-" if len(columns) == 1 else "") for column in columns])
    yield out.getvalue()


def _cell(value: Any) -> str:
    return "" if value is None else _clean(value if isinstance(value, str) else json.dumps(value))


def _clean(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def _parquet(rows: list[Row]) -> bytes:
    """Columns that agree on a type keep it, the others become text."""
    import pyarrow as pa
    import pyarrow.parquet

    columns = list(dict.fromkeys(_clean(column) for row in rows for column in row)) or ["prompt"]
    arrays = []
    for column in columns:
        values = [{_clean(key): value for key, value in row.items()}.get(column) for row in rows]
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            arrays.append(pa.array([None if value is None else _cell(value) for value in values], pa.string()))
    out = io.BytesIO()
    table = pa.Table.from_arrays(arrays, names=columns)
    try:
        pa.parquet.write_table(table, out)
    except (pa.ArrowException, ValueError):  # what Arrow holds and Parquet does not: an object without a field
        out = io.BytesIO()
        plain = [pa.array([_cell(value) for value in array.to_pylist()], pa.string()) for array in arrays]
        pa.parquet.write_table(pa.Table.from_arrays(plain, names=columns), out)
    return out.getvalue()


def _damage(random: Random, path: Path, rows: list[Row]) -> Written:
    """Bytes changed, cut, or put in."""
    content = bytearray(path.read_bytes())
    kind = random.choice(("flip", "cut", "insert", "utf-16", "twice", "digits", "brackets", "line", "empty"))
    if kind == "flip":
        for _ in range(random.randint(1, 4)):
            if content:
                content[random.randrange(len(content))] = random.randrange(256)
    elif kind == "cut":
        del content[random.randint(0, len(content)) :]
    elif kind == "insert":
        place = random.randint(0, len(content))
        content[place:place] = random.choice([b"\xff", b"\xc3", b"\x00", b"\xed\xa0\x80", b"\n", b'"', b"{", b"]"])
    elif kind == "utf-16":
        content = bytearray(json.dumps(rows).encode("utf-16"))
    elif kind == "empty":
        content = bytearray()
    else:
        lines = {
            "twice": b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen": "d"}\n',
            "digits": b'{"prompt": "a", "completion": "b", "label": ' + b"9" * 5000 + b"}\n",
            "brackets": b"[" * 100_000,
            "line": random.choice([b"[1]\n", b"null\n", b'"a"\n', b"3\n", b'{"prompt": "a"\n', b"---\n"]),
        }
        content += b"\n" + lines[kind]
    path.write_bytes(bytes(content))
    return Written(path, None)


def make_tokenizer(folder: Path) -> str:
    """A byte-level BPE with BOS, EOS and a chat template, saved in `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = {"bos_token": "<s>", "eos_token": "<|im_end|>"}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[*special.values()], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the sky is blue so it is", "Good Bad A B user assistant system"] * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **special).save_pretrained(folder)
    return str(folder)
