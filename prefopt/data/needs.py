"""What a method asks of the data, and whether a file has it: told before anything is tokenised."""

from __future__ import annotations

from prefopt.data.recognised import SCORES, Recognised
from prefopt.errors import UserError
from prefopt.settings import DataSettings, SourceSettings

DATA_NEEDS = SCORES | {
    *("pairs", "best", "ranking", "labels", "demonstrations", "margins", "targets", "verdicts", "comparisons"),
}
"""The needs that ask something of the data; the others (reference, prompt_logps ...) do not."""

_SCORES_COME_FROM = "columns score_chosen and score_rejected, a list scores, or a column score beside one response"
_COME_FROM = {
    "labels": "a column label or kto_tag, or a column score that is 1 for desirable responses",
    "scores": _SCORES_COME_FROM,
    "probabilities": _SCORES_COME_FROM,
    "margins": "what data.margins names, a column margin beside pairs, or margins of our own records",
    "targets": "a column y_ref beside pairs and lists of responses, or target of our own records",
}


def margin_names(settings: DataSettings) -> tuple[str, ...]:
    """The objectives whose rewards are columns of the data."""
    return tuple(margin.name for margin in settings.margins if margin.kind == "column" and margin.name)


def check_needs(source: SourceSettings, recognised: Recognised, needs: frozenset[str], settings: DataSettings) -> None:
    """Refuse a file that cannot serve a method with these needs.

    Raises: UserError naming the need, and the columns that would serve it.
    """
    of_format, seen = f"rows of format {recognised.format.name}", f"columns seen: {_list(recognised.columns)}"
    for need in sorted(needs & DATA_NEEDS):
        if (need == "margins" and settings.margins) or recognised.gives(need, needs):
            continue
        come_from = f"{need} come from {_COME_FROM[need]}; " if need in _COME_FROM else ""
        raise UserError(
            f"{source.path}: the method needs {need}, which these {of_format} do not have",
            f"{seen}; {come_from}use other data or another loss",
        )
    for name in margin_names(settings) if "margins" in needs else ():
        if not recognised.margin_columns(name):
            columns = {"pair": f"{name}_chosen and {name}_rejected", "list": f"{name}, a list"}
            wanted = columns.get(recognised.format.holds)
            raise UserError(
                f"{source.path}: data.margins names {name}, which these {of_format} do not have",
                f"{seen}; {f'wanted: {wanted}' if wanted else 'use pairs or lists of responses'}",
            )


def _list(columns: frozenset[str]) -> str:
    return ", ".join([column[:40] for column in sorted(columns)][:40])
