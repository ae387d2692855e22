"""`report.html`: runs side by side on one page that needs no network, no server and no other file.

    web/page.html       the frame, with places for what follows
    web/page.css        one style for light, dark, wide and narrow
    web/*.js            our script, in the order of `SCRIPTS`: it draws a figure when it comes into view
    plotly.js           compressed, in an element that is no script until the first figure is drawn
    the data            one JSON value in an element of its own (`prefopt/report/page_data.py`)

The policy in the head lets two scripts run, by their sha256, and nothing be loaded: a text of a run that was not
escaped could not do anything either.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template

from prefopt.durable import make_folder, write_text
from prefopt.errors import RunError
from prefopt.report.page_data import page_data, samples_left_out
from prefopt.report.page_sections import head, sections
from prefopt.report.runs import Gathered

SCRIPTS = ("core.js", "drawing.js", "table.js", "curves.js", "sweep.js", "trade.js", "evaluations.js", "answers.js")


def write_page(gathered: Gathered, file: Path, objectives: Sequence[str] = ()) -> None:
    """Write the page, whole or not at all. objectives: metrics that the trade-offs begin with.

    Raises: RunError where the file cannot be written.
    """
    # Half a surrogate pair, which a broken tokenizer may have written, is no character of any encoding.
    text = page(gathered, objectives).encode("utf-8", "replace").decode("utf-8")
    try:
        make_folder(file.absolute().parent)
        write_text(file, text)
    except OSError as error:
        raise RunError(
            f"{file}: the page cannot be written: {error.strerror or error}", "choose another file"
        ) from error


def page(gathered: Gathered, objectives: Sequence[str] = ()) -> str:
    """The page as HTML."""
    data = page_data(gathered, objectives)
    notes = []
    left_out = samples_left_out(gathered, data)
    if left_out:
        whose = f"{left_out:,} {'run' if left_out == 1 else 'runs'}"
        notes.append(
            f"Sample answers of {whose} are not in this page, which would be too large: see samples.jsonl there."
        )
    if len(gathered.runs) > data["shownRuns"]:
        notes.append(
            f"The curves of {data['shownRuns']} runs are drawn at first; tick others in the table to draw them."
        )
    parts = sections(gathered, data)
    script = "\n".join(_web(name) for name in SCRIPTS)
    plotly, plotly_hash = _plotly()
    when = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
    return Template(_web("page.html")).substitute(
        title=escape(gathered.title),
        policy=_policy(_sha256(script), plotly_hash),
        style=_web("page.css"),
        head=head(gathered, when, version("prefopt"), notes),
        links="".join(f'<li><a href="#{part.name}">{escape(part.link)}</a></li>' for part in parts),
        sections="".join(
            f'<section id="{part.name}" aria-labelledby="{part.name}-title">'
            f'<h2 id="{part.name}-title">{escape(part.title)}</h2>{part.body}</section>'
            for part in parts
        ),
        data=json_in_html(data),
        plotly=plotly,
        script=script,
    )


def json_in_html(value: object) -> str:
    """JSON that no HTML parser takes for the end of its element or the beginning of another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _web(name: str) -> str:
    return (files("prefopt.report") / "web" / name).read_text(encoding="utf-8")


def _sha256(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _policy(*hashes: str) -> str:
    """Nothing from anywhere, those scripts and no others. Plotly sets styles and makes pictures of its own drawings."""
    scripts = " ".join(f"'{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _plotly() -> tuple[str, str]:
    """plotly.js, compressed and in base64 (2 MB of 4.8), and the hash of what it is once it is unpacked."""
    from plotly.offline import get_plotlyjs

    source = get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    return base64.b64encode(gzip.compress(source.encode(), 9, mtime=0)).decode(), _sha256(source)
