"""docs/report.png: a small sweep of the quickstart, its report, and a picture of that page. About three minutes.

    python scripts/report_picture.py [--folder FOLDER] [--out docs/report.png]

Nine real runs: three methods at three learning rates. A folder that has the sweep already is only looked at again.
Needs playwright and a chromium.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CHROMIUM = "/usr/bin/chromium"
SWEEP = [
    "recipe=quickstart",
    "loss=dpo,orpo,simpo",
    "optim.lr=1e-4,3e-4,1e-3",
    "train.eval_every=10",
    "sample.every=20",
    "sample.count=64",
    "name=manners",
]
"""The quickstart's data and model; more evaluations, so that held-out curves are curves."""

VIEW = {"width": 1400, "height": 1040}
MOST_BYTES = 300_000


def main() -> None:
    """Run what is missing, write the report, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the runs lie; a temporary one by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "report.png")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="report-picture-"))
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("sweeps/*/sweep.json")):
        subprocess.run([sys.executable, "-m", "prefopt.cli", "train", "-m", *SWEEP], cwd=folder, check=True)
    page = folder / "report.html"
    write_report(folder, page)
    take(page, options.out)
    size = options.out.stat().st_size
    print(f"{page}\n{options.out}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        sys.exit(f"{options.out} is larger than {MOST_BYTES / 1000:.0f} kB")


def write_report(folder: Path, page: Path) -> None:
    """The page of all sweeps of the folder."""
    from prefopt.report.collect import gather
    from prefopt.report.page import write_page

    write_page(gather([file.parent for file in sorted(folder.glob("sweeps/*/sweep.json"))]), page)


def take(page: Path, out: Path) -> None:
    """A picture of the page's beginning when its curves are drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport=VIEW, color_scheme="light")
        tab.goto(page.as_uri())
        # Curves begin within the picture's height below a table of nine runs.
        tab.wait_for_selector("#learning .plot .main-svg")
        tab.wait_for_timeout(1500)
        tab.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    main()
