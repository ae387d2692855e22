"""What will be trained on, for the eye: the report as tables, rows with trained tokens marked, every row left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefopt.batch import Encoded
from prefopt.console import PLAIN, print_table
from prefopt.data.dataset import HELD_OUT, EncodedSet, Prepared

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from transformers import PreTrainedTokenizerBase

_IDS_NAMED = 20
_COUNTS = (
    ("read", "rows read"),
    ("kept", "rows kept"),
    ("pairs", "pairs"),
    ("responses", "responses"),
    ("identical_pairs", "pairs of equal responses"),
    ("close_pairs", "pairs of too close scores"),
    ("empty_prompts", "empty prompts"),
    ("empty_responses", "empty responses"),
    ("duplicate_prompts", "repeated prompts"),
    ("boundary_moved", "boundaries moved"),
    ("eos_kept", "responses ending in EOS"),
    ("texts_with_special_tokens", "texts that spell special tokens"),
    ("unknown_tokens", "unknown tokens"),
)


def show(prepared: Prepared, tokenizer: PreTrainedTokenizerBase, console: Console, rows: int = 3) -> None:
    """Prints the account, the first `rows` rows of train as the model sees them, and all rows left out."""
    report = prepared.report
    print_table(console, _sources_table(report))
    print_table(console, _sets_table(report))
    for source in report["sources"]:
        for sentence in source["conversions"]:
            console.print(f"{source['path']}: {sentence}", markup=False, highlight=False, soft_wrap=True)
        if source["columns_unused"]:
            unused = ", ".join(source["columns_unused"])
            console.print(
                f"{source['path']}: columns not used: {unused}", markup=False, highlight=False, soft_wrap=True
            )
    for name, about in report["sets"].items():
        for one in about["repeated"]["examples"]:
            what = "is the same row as" if one["same"] else "has the prompt, not the responses, of"
            console.print(f"{name}: {one['row']} {what} {one['of']}", **PLAIN)
    if HELD_OUT in report["sets"] and report["settings"]["eval_size"]:
        console.print(f"held out: {_some(prepared.eval[HELD_OUT].ids)}", **PLAIN)
    for place in range(min(rows, len(prepared.train))):
        show_row(prepared.train, place, tokenizer, console)
    _show_left_out(prepared, console)


def show_row(rows: EncodedSet, place: int, tokenizer: PreTrainedTokenizerBase, console: Console) -> None:
    """One row: the prompt once, each response with its trained tokens marked, and their ids."""
    from rich.text import Text

    example = rows[place]
    console.rule(Text(f"{rows.name} {place}: {example.id}"), characters="-")
    console.print(_marked(str(tokenizer.decode(example.prompt)), None, console), soft_wrap=True)
    console.print(
        f"prompt ids ({len(example.prompt)}): {example.prompt}",
        style="dim",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for number, response in enumerate(example.responses):
        name, given = _name(example, number), 0 if example.given is None else example.given[number]
        read = _decoded_behind(example.prompt, response[:given], tokenizer)
        said = _decoded_behind(example.prompt + response[:given], response[given:], tokenizer)
        console.print(_marked(said, name, console, read), soft_wrap=True)
        trained = f"the last {len(response) - given}" if given else "all"
        line = f"{name} ids ({len(response)}, {trained} trained): {response}"
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)


def _decoded_behind(before: list[int], ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of `ids` as it stands behind others: alone, many tokenizers take the space off the first token.

    Where both together do not begin with the text before - a character whose bytes they share - it is theirs alone.
    """
    front, whole = str(tokenizer.decode(before)), str(tokenizer.decode(before + ids))
    return whole[len(front) :] if whole.startswith(front) else str(tokenizer.decode(ids))


def _name(example: Encoded, number: int) -> str:
    """What a response is to the method."""
    if number == example.target:
        return f"{_judged(example, number)}, to imitate"
    return _judged(example, number)


def _judged(example: Encoded, number: int) -> str:
    if example.labels is not None:
        return "desirable" if example.labels[number] else "undesirable"
    if len(example.responses) == 1:
        return "response"
    if example.given is not None:
        return f"comparison {number + 1}"
    if len(example.pairs) == 1:
        return (
            "chosen" if number == example.pairs[0][0] else "rejected" if number == example.pairs[0][1] else "unpaired"
        )
    return f"response {number + 1}" + (" (best)" if number == example.best else "")


def _marked(words: str, trained_as: str | None, console: Console, read: str = "") -> Any:
    """The text, in a style where it is trained; where there is no colour, in brackets. read: what stands before it."""
    from rich.text import Text

    if trained_as is None:
        return Text(words)
    if console.color_system is None or console.no_color:
        return Text(f"{trained_as}: {read}[[{words}]]")
    return Text.assemble((f"{trained_as}: ", "bold"), read, (words, "green" if trained_as != "rejected" else "red"))


def _table(title: str, columns: list[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number else "left", overflow="fold")
    return table


def _sources_table(report: dict[str, Any]) -> Table:
    accounts = list(report["sources"])
    names = [f"{source['set']}: {source['path']}" for source in accounts]
    if len(accounts) > 1:
        accounts.append(report["total"])
        names.append("total")
    table = _table("data", ["", *names])
    table.add_row("format", *(account.get("format", "") for account in accounts))
    for key, words in _COUNTS:
        table.add_row(words, *(str(account[key]) for account in accounts))
    if "labels" in report["total"]:
        labels = ("{desirable}, {undesirable}".format(**account["labels"]) for account in accounts)
        table.add_row("responses desirable, undesirable", *labels)
    table.add_row("prompts, responses cut", *("{prompts}, {responses}".format(**a["truncated"]) for a in accounts))
    table.add_row("BOS per row", *(_range(account["bos_per_row"]) for account in accounts))
    for key, words in (("prompt_tokens", "prompt tokens"), ("response_tokens", "response tokens")):
        table.add_row(f"{words} min/p50/p90/max", *(_lengths(account[key]) for account in accounts))
    for reason in report["total"]["dropped"]:
        counts = (str(a["dropped"][reason]["count"] if reason in a["dropped"] else 0) for a in accounts)
        table.add_row(f"left out: {reason}", *counts)
    return table


def _sets_table(report: dict[str, Any]) -> Table:
    table = _table("sets", ["", "rows", "pairs", "responses", "tokens", "prompts also in train"])
    for name, about in report["sets"].items():
        counts = (str(about[key]) for key in ("rows", "pairs", "responses", "tokens"))
        table.add_row(name, *counts, str(about.get("prompts_also_in_train", "")))
    return table


def _some(ids: list[str]) -> str:
    """The first ids, and how many there are besides."""
    more = len(ids) - _IDS_NAMED
    return ", ".join(ids[:_IDS_NAMED]) + (f" and {more} more" if more > 0 else "")


def _range(bounds: dict[str, int] | None) -> str:
    return (
        ""
        if bounds is None
        else str(bounds["min"])
        if bounds["min"] == bounds["max"]
        else "{min} to {max}".format(**bounds)
    )


def _lengths(quantiles: dict[str, int] | None) -> str:
    return "" if quantiles is None else "{min} / {p50} / {p90} / {max}".format(**quantiles)


def _show_left_out(prepared: Prepared, console: Console) -> None:
    if not prepared.left_out:
        console.print("no row is left out")
        return
    console.rule(f"{len(prepared.left_out)} rows left out", characters="-")
    for row in prepared.left_out:
        detail = f" ({row['detail']})" if row["detail"] else ""
        console.print(f"{row['id']}: {row['reason']}{detail}", markup=False, highlight=False, soft_wrap=True)
