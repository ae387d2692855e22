"""How the answers of a file were decoded, as far as the folder of `measure=answers` that it lies in says."""

from __future__ import annotations

from pathlib import Path

from prefopt.errors import UserError
from prefopt.evaluate.folder import SETTINGS
from prefopt.evaluate.measures.answers import Answers
from prefopt.evaluate.registry import make_measure
from prefopt.run_folder import read_json

_DEEP = 3
"""Folders above a file that may be that one: evaluators' own files lie as deep as mt_bench/model_answer."""


def decoding_of(file: str) -> str:
    """ "sampled, temperature=1, top_p=1, max_new_tokens=24"; "" of a file in no folder of `measure=answers`."""
    for folder in list(Path(file).absolute().parents)[:_DEEP]:
        try:
            plain = read_json(folder / SETTINGS)
            made = make_measure(plain["measure"]) if plain is not None else None
        except (UserError, KeyError, TypeError, OSError):  # a settings.yaml of something else says nothing
            continue
        if isinstance(made, Answers):
            return made.decoding()
    return ""


def decoding_notes(answers: str, baseline: str) -> list[str]:
    """A note on the decoding of both files, where it is known of one, and that it differs, where it does."""
    mine, theirs = decoding_of(answers), decoding_of(baseline)
    if not mine and not theirs:
        return []
    if mine == theirs:
        return [f"decoding of both: {mine}"]
    known = f"decoding of measure.answers: {mine or 'not known'}; of measure.baseline: {theirs or 'not known'}"
    return [f"{known}. They differ, and with them what is compared." if mine and theirs else known]
