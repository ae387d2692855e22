"""The page in a browser that has no network: it draws, sorts, filters, highlights, and fits a phone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from page_bed import many, sweep
from test_page import EVIL

from prefopt.report.page import write_page

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium: apt-get install chromium"),
]
DESKTOP, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        one = running.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_page(sweep(folder), folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a file offline; at the end nothing has left it and no script has failed."""
    contexts, wrong = [], []

    def open_page(file: Path, viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> Any:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True)
        contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("request", lambda request: wrong.append(request.url) if is_outside(request.url, file) else None)
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        tab.goto(file.as_uri())
        tab.wait_for_selector("html[data-ready=yes]")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def is_outside(url: str, file: Path) -> bool:
    return url != file.as_uri() and not url.startswith(("data:", "blob:"))


def show(tab: Any, section: str) -> None:
    """Scroll to a section and wait until its first figure is drawn."""
    tab.evaluate("name => document.getElementById(name).scrollIntoView()", section)
    tab.wait_for_selector(f"#{section} .main-svg")


def column(tab: Any, head: str) -> list[str]:
    return tab.evaluate(
        """head => {
          const at = document.querySelector(`#runs th[title="${head}"]`).cellIndex;
          return [...document.querySelectorAll("#runs tbody tr")].map((row) => row.cells[at].dataset.v);
        }""",
        head,
    )


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_draws_and_the_body_never_scrolls_sideways(opened, file, tmp_path, viewport, scheme):
    tab = opened(file, viewport, scheme)
    tab.screenshot(path=tmp_path / "top.png")
    for section in ("learning", "rewards", "logps", "drift", "curve", "heat", "trade", "figures", "scatter"):
        show(tab, section)
    assert tab.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    tab.evaluate("document.getElementById('parallel').scrollIntoView()")
    tab.wait_for_function("document.querySelectorAll('#parallel path').length === 13")


def test_a_head_sorts_its_column_and_what_is_missing_stays_below(opened, file):
    tab = opened(file)
    head = tab.locator('#runs th[title="eval/heldout/loss"] button')
    for order, turned in (("descending", True), ("ascending", False)):
        head.click()
        values = column(tab, "eval/heldout/loss")
        there = [float(value) for value in values if value]
        assert there == sorted(there, reverse=turned)
        assert values[len(there) :] == [""] * 5
        assert tab.locator('#runs th[title="eval/heldout/loss"]').get_attribute("aria-sort") == order
    tab.locator('#runs th[title="loss.beta"] button').click()
    assert column(tab, "loss.beta") == sorted(column(tab, "loss.beta"), key=float)


def test_the_head_of_a_metric_of_which_more_is_better_puts_the_best_first(opened, file):
    tab = opened(file)
    tab.locator('#runs th[title="eval/heldout/rewards/accuracy"] button').click()
    assert tab.locator("#runs tbody tr").first.locator(".star").count() >= 1


def test_the_box_filters_rows_by_all_of_its_words(opened, file):
    tab = opened(file)
    tab.fill("#filter", "failed ipo")
    assert tab.locator("#runs tbody tr:visible").count() == 1
    assert tab.inner_text("#filtered") == "1 of 18"
    tab.fill("#filter", "")
    assert tab.locator("#runs tbody tr:visible").count() == 18


def test_a_folded_column_is_unfolded_by_its_box(opened, file):
    tab = opened(file)
    head = tab.locator('#runs th[title="samples/repetition"]')
    assert not head.is_visible()
    tab.locator(".columns summary").click()
    tab.locator(".columns label", has_text="samples/repetition").locator("input").check()
    assert head.is_visible()


def test_a_row_highlights_its_run_in_every_figure_and_the_keyboard_does_too(opened, file):
    tab = opened(file)
    opacities = "node => node.data.map((trace) => [trace.meta, trace.opacity, trace.line.width])"
    tab.locator("#runs tbody tr").nth(2).locator("td").first.click()
    assert tab.locator('#runs .pick[aria-pressed="true"]').count() == 1
    for section in ("learning", "rewards"):
        show(tab, section)
        found = tab.locator(f"#{section} .plot").first.evaluate(opacities)
        assert found[-1][0] == 2
        assert found[-1][1] == 1
        assert all(opacity < 0.3 for _, opacity, _ in found[:-1])
    tab.locator("#runs tbody tr").nth(2).locator(".pick").focus()
    tab.keyboard.press("Enter")
    assert tab.locator('#runs .pick[aria-pressed="true"]').count() == 0
    show(tab, "learning")
    tab.wait_for_function("document.querySelector('#learning .plot').data.every((trace) => trace.opacity === 1)")


def test_a_curve_says_run_step_and_value_under_the_pointer(opened, file):
    tab = opened(file)
    show(tab, "learning")
    plot = tab.locator('#learning [data-curve="eval/heldout/loss"]')
    plot.locator(".main-svg").first.wait_for()
    point = plot.locator(".points path").nth(5)
    point.hover(force=True)
    text = tab.locator(".hoverlayer .hovertext").first
    text.wait_for()
    assert "step" in text.text_content()
    assert "loss=" in text.text_content()


def test_the_heat_map_shows_the_settings_and_the_metric_that_are_chosen(opened, file):
    tab = opened(file)
    show(tab, "heat")
    tab.select_option("#heat-x", "optim.lr")
    tab.select_option("#heat-y", "loss.beta")
    tab.select_option("#heat-metric", "samples/repetition")
    figure = '[data-figure="heat"]'
    tab.wait_for_function(f"document.querySelector('{figure}').data[0].x.length === 2")
    heat = tab.locator(figure).evaluate(
        "node => [node.data[0].x, node.data[0].y, node.data[0].z, node.data[0].reversescale]"
    )
    assert heat[0] == ["0.0001", "0.0003"]
    assert heat[1] == ["0.03", "0.1", "0.3"]
    runs = tab.evaluate("RUNS.filter((r) => r.varied['optim.lr'] === 0.0001 && r.varied['loss.beta'] === 0.03)")
    values = [run["metrics"]["samples/repetition"] for run in runs if "samples/repetition" in run["metrics"]]
    assert heat[2][0][0] == pytest.approx(sum(values) / len(values))
    assert heat[3] is True
    tab.select_option("#heat-y", "")
    tab.wait_for_function(f"document.querySelector('{figure}').data[0].type === 'scatter'")


def test_the_front_of_three_objectives_is_that_of_the_page_s_data(opened, file):
    tab = opened(file)
    show(tab, "trade")
    tab.select_option("#trade-x", "0")
    tab.select_option("#trade-y", "1")
    tab.select_option("#trade-z", "2")
    found = tab.evaluate("DATA.fronts.found['0,1,2']")
    tab.wait_for_function("document.getElementById('trade-note').textContent.includes('and')")
    note = tab.inner_text("#trade-note")
    assert note.startswith(f"{len(found['front'])} of {len(found['points'])} runs are on the front")
    tab.select_option("#trade-y", "0")
    tab.select_option("#trade-z", "")
    assert tab.inner_text("#trade-note") == "Choose two different objectives."


def test_answers_before_and_after_have_their_other_words_marked(opened, file):
    tab = opened(file)
    card = tab.locator("#answers .exchange").first
    assert "A carrot comes in what colour?" in card.inner_text()
    before = card.locator(".answer").first.locator("mark").all_inner_texts()
    assert before == ["Ugh,", "fine.", "Stop", "wasting", "my", "time."]


def test_details_follow_the_run_that_is_chosen(opened, file):
    tab = opened(file)
    tab.select_option("#details-run", "7")
    text = tab.inner_text("#details-body")
    assert "prefopt train --repeat" in text
    assert "run-7" in text
    assert "empty response" in text


def test_a_run_by_the_name_of_a_script_is_only_shown(opened, tmp_path):
    found = sweep(tmp_path, ("dpo",), 30)
    runs = [replace(run, label=EVIL, varied={}) for run in found.runs]
    write_page(replace(found, runs=runs, varied=(), title=EVIL), tmp_path / "report.html")
    tab = opened(tmp_path / "report.html")
    assert tab.locator("#runs .pick").first.inner_text() == EVIL
    show(tab, "learning")
    tab.locator('#learning [data-curve="eval/heldout/loss"] .points path').nth(3).hover(force=True)
    hover = tab.locator(".hoverlayer .hovertext").first
    hover.wait_for()
    assert "<script>" in hover.text_content()
    assert tab.locator("img").count() == 0


def test_a_script_that_was_not_escaped_would_not_run_either(browser, file, tmp_path):
    text = file.read_text(encoding="utf-8").replace("<main", "<script>document.title = 'ran'</script><main", 1)
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    tab = browser.new_page()  # and not `opened`: the browser says on the console that it refused
    tab.goto((tmp_path / "report.html").as_uri())
    tab.wait_for_selector("html[data-ready=yes]")
    assert tab.title() != "ran"
    tab.close()


def test_twenty_and_a_thousand_runs_open(opened, tmp_path):
    for count, steps in ((20, 1000), (1000, 200)):
        gathered = many(tmp_path, count, steps)
        start = time.perf_counter()
        write_page(gathered, tmp_path / f"{count}.html")
        written = time.perf_counter() - start
        tab = opened(tmp_path / f"{count}.html")
        # From the click on, as the browser counts: playwright's own start is not in it.
        ready = tab.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd") / 1000
        start = time.perf_counter()
        show(tab, "learning")
        drawn = time.perf_counter() - start
        megabytes = (tmp_path / f"{count}.html").stat().st_size / 1e6
        print(
            f"{count} runs: written in {written:.2f} s, {megabytes:.1f} MB,"
            f" ready after {ready:.2f} s, curves drawn {drawn:.2f} s after a jump to them"
        )
        assert written < 30
        assert tab.locator("#runs .draw:checked").count() == min(count, 40)
