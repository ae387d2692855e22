"""The page as HTML: it stands alone, says only what there is, and what runs say in it stays text."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from page_bed import many, sweep

from prefopt.errors import RunError
from prefopt.evaluate.measure import Figure
from prefopt.report.page import page, write_page
from prefopt.report.page_fronts import fronts
from prefopt.report.runs import Evaluation, Gathered, Run
from prefopt.report.shown import duration, number, size
from prefopt.report.thin import thin
from prefopt.report.verdict import preference

EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">'


class Elements(HTMLParser):
    """Every element with its attributes, and the texts of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in ("meta", "input", "wbr", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.found if "id" in attributes]

    def sections(self) -> list[str]:
        return [attributes["id"] or "" for tag, attributes in self.found if tag == "section"]

    def data(self) -> dict[str, Any]:
        (text,) = [text for attributes, text in self.scripts if attributes.get("type") == "application/json"]
        return json.loads(text)


def one_run(**more: Any) -> Gathered:
    run = Run(folder=None, label="run", method="dpo", varied={}, settings={}, state="done")
    return Gathered("one", [replace(run, **more)], ())


def test_the_page_loads_nothing_and_its_policy_forbids_it_to(tmp_path: Path) -> None:
    elements = Elements(page(sweep(tmp_path)))
    for tag, attributes in elements.found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "action", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    (policy,) = [a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_the_policy_names_exactly_the_two_scripts_of_the_page(tmp_path: Path) -> None:
    text = page(sweep(tmp_path))
    elements = Elements(text)
    (ours,) = [script for attributes, script in elements.scripts if "type" not in attributes]
    (packed,) = [script for attributes, script in elements.scripts if attributes.get("type") == "text/plain"]
    plotly = gzip.decompress(base64.b64decode(packed)).decode()
    assert plotly.lstrip().startswith("/**\n* plotly.js")
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (ours, plotly)]
    assert re.findall(r"'sha256-([^']+)'", text) == hashes


def test_no_text_of_a_run_becomes_an_element() -> None:
    evil_figures = {EVIL: Figure(0.5, 0.4, 0.6, 10)}
    evaluation = Evaluation(EVIL, Path(EVIL), evil_figures, {EVIL: [{EVIL: EVIL}]}, [EVIL], {EVIL: 3})
    gathered = one_run(
        label=EVIL, method=EVIL, state=EVIL, error=EVIL, folder=Path(EVIL), varied={EVIL: EVIL}, metrics={EVIL: 1.0},
        curves={EVIL: [(1, 1.0)]}, samples=[{"prompt": EVIL, "before": EVIL, "after": "</script>"}],
        evaluations=[evaluation], data_report={"sources": [{"set": EVIL, "dropped": {EVIL: {"count": 1}}}]},
        manifest={"starts": [{"command": [EVIL]}]},
    )  # fmt: skip
    gathered = replace(gathered, title=EVIL, varied=(EVIL,), notes=(EVIL,))
    elements = Elements(page(gathered, [EVIL]))
    assert len(elements.scripts) == 3
    assert not [tag for tag, _ in elements.found if tag == "img"]
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert elements.data()["runs"][0]["label"] == EVIL


def test_every_element_is_closed_and_every_id_is_there_once(tmp_path: Path) -> None:
    elements = Elements(page(sweep(tmp_path)))
    assert elements.open == []
    assert len(set(elements.ids())) == len(elements.ids())


def test_a_sweep_has_every_section_in_this_order(tmp_path: Path) -> None:
    assert Elements(page(sweep(tmp_path))).sections() == [
        "table", "learning", "rewards", "logps", "drift", "curve", "heat", "parallel-section", "trade", "figures",
        "scatter", "tables", "answers", "details",
    ]  # fmt: skip


def test_a_queued_job_alone_is_a_table_and_nothing_else() -> None:
    assert Elements(page(one_run(state="queued"))).sections() == ["table"]


def test_no_runs_at_all_are_a_page_without_sections() -> None:
    assert Elements(page(Gathered("nothing", [], ()))).sections() == []


def test_a_run_without_pairs_has_no_section_of_margins() -> None:
    assert Elements(page(one_run(curves={"loss": [(1, 2.0), (2, 1.0)]}))).sections() == ["table", "learning", "curve"]


def test_one_swept_setting_is_a_figure_over_it_and_no_parallel_axes(tmp_path: Path) -> None:
    found = sweep(tmp_path, ("dpo",))
    runs = [replace(run, varied={"loss.beta": run.varied["loss.beta"]}) for run in found.runs]
    sections = Elements(page(replace(found, runs=runs, varied=("loss.beta",)))).sections()
    assert "heat" in sections
    assert "parallel-section" not in sections


def test_what_failed_stands_above_the_table_with_its_reason() -> None:
    text = page(one_run(state="failed", error="loss is not finite at step 61"))
    assert text.index("loss is not finite at step 61") < text.index('<main id="main">')


def test_a_missing_metric_is_a_dash_and_not_a_number() -> None:
    runs = [replace(one_run().runs[0], label=name) for name in ("a", "b")]
    text = page(Gathered("two", [replace(runs[0], metrics={"eval/heldout/loss": 0.5}), runs[1]], ()))
    assert re.findall(r'<td class="number" data-v="([^"]*)">([^<]*)</td>', text)[:1] == [("0.5", "0.5")]
    assert '<td class="number" data-v="">–</td>' in text
    assert Elements(text).data()["runs"][1]["metrics"] == {}


def test_numbers_that_are_not_finite_are_no_json_and_are_said() -> None:
    text = page(one_run(metrics={"eval/heldout/loss": math.nan, "eval/heldout/nll": math.inf}, nonfinite=3))
    assert Elements(text).data()["runs"][0]["metrics"] == {"eval/heldout/loss": None, "eval/heldout/nll": None}
    assert ">NaN</td>" in text
    assert ">∞</td>" in text
    assert "3 values not finite" in text


def test_the_best_value_is_marked_where_one_direction_is_better() -> None:
    values = [{"eval/a/loss": 0.5, "eval/a/length/chosen": 3.0}, {"eval/a/loss": 0.4, "eval/a/length/chosen": 4.0}]
    runs = [replace(one_run().runs[0], label=str(place), metrics=one) for place, one in enumerate(values)]
    best = re.findall(r'class="number best" data-v="([^"]*)"', page(Gathered("two", runs, ())))
    assert best == ["0.4"]


def test_losses_and_margins_of_different_methods_have_no_best_value() -> None:
    values = {"eval/a/loss": 0.5, "eval/a/rewards/margin": 1.0, "eval/a/nll": 2.0}
    one = replace(one_run().runs[0], metrics=values)
    other = replace(one, label="other", method="ipo", metrics={name: value + 1 for name, value in values.items()})
    marked = re.compile(r'class="number best" data-v="([^"]*)"')
    assert marked.findall(page(Gathered("two", [one, other], ()))) == ["2.0"]
    asked = Gathered("two", [one, other], (), metric="eval/a/loss", direction="minimize")
    assert marked.findall(page(asked)) == ["0.5", "2.0"]


def test_a_run_that_still_goes_on_is_not_the_best() -> None:
    one = replace(one_run().runs[0], metrics={"eval/a/loss": 0.5})
    runs = [one, replace(one, label="b", metrics={"eval/a/loss": 0.6}), replace(one, label="c", state="running")]
    runs[2] = replace(runs[2], metrics={"eval/a/loss": 0.1})
    assert re.findall(r'class="number best" data-v="([^"]*)"', page(Gathered("three", runs, ()))) == ["0.5"]


def test_half_a_surrogate_pair_is_written_as_a_question_mark(tmp_path: Path) -> None:
    write_page(one_run(label="a\ud800b"), tmp_path / "report.html")
    assert ">a?b</button>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_page(one_run(), tmp_path / "file" / "report.html")


def test_texts_that_runs_share_are_in_the_page_once(tmp_path: Path) -> None:
    data = Elements(page(sweep(tmp_path))).data()
    assert data["texts"].count("A spider walks on how many legs?") == 1
    assert sum(bool(run["samples"]) for run in data["runs"]) == 13
    assert len(data["blocks"]) < 2 * len(data["runs"])


def test_three_hundred_points_of_a_curve_are_enough_and_forty_of_a_thousand_runs(tmp_path: Path) -> None:
    long = page(one_run(curves={"loss": [(step, math.sin(step)) for step in range(5000)]}))
    assert len(Elements(long).data()["runs"][0]["curves"]["loss"][0]) <= 300
    crowd = Elements(page(many(tmp_path, 1500, 60))).data()
    assert all(len(run["curves"]["loss"][0]) <= 40 for run in crowd["runs"])


def test_thinning_keeps_both_ends_and_every_spike() -> None:
    points = [(step, 0.0) for step in range(10_000)]
    points[1234], points[8765] = (1234, 9.0), (8765, -9.0)
    kept = thin(points, 300)
    assert len(kept) <= 300
    assert {points[0], points[-1], points[1234], points[8765]} <= set(kept)
    assert kept == sorted(kept)
    assert thin(points[:300], 300) == points[:300]


def test_the_front_of_three_hand_made_runs_and_its_area() -> None:
    # In (more, less): (1, 1), (2, 2) trade off; (1, 3) is behind both. From the worst, (1, 3): (2-1) * (3-2) = 1.
    metrics = [{"accuracy": 1.0, "loss": 1.0}, {"accuracy": 2.0, "loss": 2.0}, {"accuracy": 1.0, "loss": 3.0}]
    found = fronts(metrics, {"accuracy": 1, "loss": -1}, [])["found"]["0,1"]
    assert (found["front"], found["hypervolume"], found["reference"]) == ([0, 1], 1.0, [1.0, 3.0])


def test_the_first_trade_off_is_between_objectives_that_disagree() -> None:
    metrics = [{"a": float(n), "b": float(n), "c": float(-n), "d": 0.0 if n else 1.0} for n in range(4)]
    found = fronts(metrics, dict.fromkeys("abcd", 1), [])
    assert [found["objectives"][int(place)] for place in found["first"].split(",")] == ["a", "c"]


def test_objectives_that_are_asked_for_come_first() -> None:
    metrics = [{"a": 1.0, "b": 2.0, "length": 3.0}, {"a": 2.0, "b": 1.0, "length": 4.0}]
    found = fronts(metrics, {"a": 1, "b": 1, "length": -1}, ["length", "b"])
    assert (found["objectives"], found["first"]) == (["length", "b", "a"], "0,1")


@pytest.mark.parametrize(
    ("metric", "way"),
    [("eval/heldout/loss", -1), ("eval/heldout/nll", -1), ("preferences/heldout/perplexity", -1),
     ("eval/heldout/rewards/accuracy", 1), ("win_rate/win_rate", 1), ("samples/repetition", -1),
     ("samples/length", 0), ("eval/heldout/logps/chosen", 0), ("eval/heldout/logps/accuracy", 1),
     ("samples/drift_per_token", 0), ("samples/collapsed", 0)],
)  # fmt: skip
def test_a_metric_has_a_better_direction_or_none(metric: str, way: int) -> None:
    assert preference(metric) == way


def test_numbers_are_spelt_for_people() -> None:
    assert [number(x) for x in (None, 0.0, 0.69314718, -135.84, 12480.0, 2e-5, math.nan)] == [
        "–", "0", "0.6931", "-135.8", "12,480", "2e-05", "NaN",
    ]  # fmt: skip
    assert [duration(x) for x in (None, 12.34, 245, 12000, 183600)] == [
        "–",
        "12.3 s",
        "4 min 05 s",
        "3 h 20 min",
        "2 d 3 h",
    ]
    assert [size(x) for x in (None, 512, 720375808, 13 * 2**30)] == ["–", "512 B", "687 MiB", "13.0 GiB"]
