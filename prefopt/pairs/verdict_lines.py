"""What a judge is asked, by a template, and what it says, read off the last line of its form."""

from __future__ import annotations

import re
from pathlib import Path

from prefopt.errors import did_you_mean
from prefopt.fill import SettingsError

_FOLDER = Path(__file__).parent / "judge_templates"

BUILTIN = {"quality": "scalar", "curation": "scalar", "comparison": "pairwise"}
"""Name of a template of ours to the mode it is for."""
PLACES = {"scalar": ("prompt", "response"), "pairwise": ("prompt", "first", "second")}
"""Mode to the places in braces that a template must have."""

_SCORE = re.compile(
    r"^[\s>*_#`-]*score[\s*_`]*[:=][\s*_`\[(]*(\d+(?:[.,]\d+)?)(?:\s*(?:/|out\s+of)\s*\d+)?[\s*_`\]).]*$",
    re.IGNORECASE | re.MULTILINE,
)
_VERDICT = re.compile(r"^[\s>*_#`-]*verdict[\s*_`]*[:=][\s*_`\[(]*(A|B|tie)[\s*_`\]).]*$", re.IGNORECASE | re.MULTILINE)
_SHARES = {"a": 1.0, "b": 0.0, "tie": 0.5}


def read_template(name: str, mode: str) -> str:
    """The text of a template: one of ours by its name, or a text file.

    Raises: SettingsError for a file that is not there, is no text, or lacks a place that `mode` needs.
    """
    file = _FOLDER / f"{name}.txt" if name in BUILTIN else Path(name).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError("template", f"{name} is no UTF-8 text") from None
    except OSError as error:
        hint = did_you_mean(name, BUILTIN)
        said = f"{name} is neither a template of ours nor a text file: {error.strerror}"
        raise SettingsError("template", said, hint) from None
    missing = [place for place in PLACES[mode] if f"{{{place}}}" not in text]
    if missing:
        needed = " and ".join(f"{{{place}}}" for place in missing)
        raise SettingsError("template", f"{name} has no {needed}, which mode={mode} fills in")
    return text


def fill_in(template: str, values: dict[str, str]) -> str:
    """A template with its places filled; other braces stay, and so do those that stand in what is filled in."""
    return re.sub(r"\{(" + "|".join(values) + r")\}", lambda found: values[found[1]], template)


def read_score(said: str, lowest: float, highest: float) -> float | None:
    """The number of the last line such as "Score: 4" or "**Score:** 3.5 / 5"; None for no such line, or one beyond the
    scale."""
    lines = _SCORE.findall(said)
    score = float(lines[-1].replace(",", ".")) if lines else None
    return score if score is not None and lowest <= score <= highest else None


def read_verdict(said: str) -> float | None:
    """What A gets by the last line such as "Verdict: B": 1, 0, or 0.5 for a tie; None for no such line."""
    lines = _VERDICT.findall(said)
    return _SHARES[lines[-1].lower()] if lines else None
