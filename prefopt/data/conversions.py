"""Where a method does not take rows as they are: what is lost, left out or invented, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prefopt.data.build import Built
from prefopt.data.needs import margin_names
from prefopt.data.recognised import SCORES
from prefopt.data.verdicts import BAD, FIRST, GOOD, SECOND
from prefopt.settings import DataSettings

_PAIRS = {
    "best_vs_worst": "the best and the worst response are the pair",
    "all": "every two responses of different score are a pair",
    "adjacent": "neighbours in score are the pairs",
    "random": "one pair, drawn by a hash of the row's words, is taken, the same in every epoch",
}


def conversions(built: Built, settings: DataSettings, needs: frozenset[str]) -> list[str]:
    """A sentence for each way in which the kept rows of a source are not what the method is given."""
    numbers = built.artefact.numbers.plain

    def total(column: str) -> int:
        return int(numbers[column].sum())

    return [
        *_as_they_stand(built, total),
        *_pairs(built, settings, needs, total),
        *_scores(built, settings, needs),
        *_labels(needs, total),
        *_beside(built, settings, needs, total),
        *_verdicts(needs, total),
    ]


def _as_they_stand(built: Built, total: Callable[[str], int]) -> Iterator[str]:
    if glued := total("num_glued"):
        yield f"{glued} responses follow their prompt without white space: plain rows are joined as they stand"
    facts = built.artefact.facts
    if facts["format"] == "trl" and not facts["has_prompt_column"]:
        yield "there is no prompt column: the prompt is what chosen and rejected share"


def _pairs(built: Built, settings: DataSettings, needs: frozenset[str], total: Callable[[str], int]) -> Iterator[str]:
    unused, close = total("num_unused"), total("num_close")
    if not needs & {"pairs", "ranking", "labels"}:
        if unused:
            yield f"only the best response is imitated: {unused} rejected responses are not used by this method"
        return
    if rankings := total("is_paired_ranking"):
        yield f"{rankings} rankings of more than two responses become pairs: {_PAIRS[settings.pairs]}"
    if unused:
        yield f"{unused} responses are in no pair ({settings.pairs}) and are not used"
    if close:
        gap = f"data.min_score_gap={settings.min_score_gap:g}"
        yield f"{close} pairs are left out: their scores differ by less than {gap}"


def _scores(built: Built, settings: DataSettings, needs: frozenset[str]) -> Iterator[str]:
    facts = built.artefact.facts
    if "ranking" in needs and not needs & SCORES and not facts["has_scores"]:
        if facts["holds"] == "pair":
            yield "there are no scores: chosen responses are given 1, rejected ones 0"
        elif facts["format"] == "ranked":
            yield "there are no scores: ranks become scores, 0 for the best and below it minus the rank"
    made = needs & {"pairs", "labels"} and facts["holds"] != "one"
    if made and facts["has_scores"] and not needs & (SCORES | {"ranking"}):
        beyond = f", and whether they differ by {settings.min_score_gap:g}" if settings.min_score_gap else ""
        yield f"scores only say which response is preferred{beyond}: by how much is not used"


def _labels(needs: frozenset[str], total: Callable[[str], int]) -> Iterator[str]:
    if "labels" not in needs:
        return
    if by_pair := total("labelled_by_pair"):
        yield f"{by_pair} rows have no labels: chosen responses are labelled desirable, rejected ones undesirable"
    if by_score := total("is_labelled_by_score"):
        yield f"{by_score} rows are labelled by their scores: 1 is desirable, any other number is not"
    if demonstrations := total("is_demonstration"):
        yield f"{demonstrations} rows without a label count as desirable"


def _beside(built: Built, settings: DataSettings, needs: frozenset[str], total: Callable[[str], int]) -> Iterator[str]:
    if "margins" in needs and not settings.margins and built.artefact.facts["holds"] == "pair":
        yield "the margin of a pair is given to its chosen response, and 0 to the rejected one"
    if "margins" in needs and not margin_names(settings) and settings.margins:
        yield "no margin is a column of the data: models and lengths give them"
    if "targets" in needs:
        added = total("num_added")
        yield (
            f"{added} responses to imitate are added to their rows, in no pair and without a score;"
            f" {built.artefact.facts['kept'] - added} are one of the row's responses already"
        )


def _verdicts(needs: frozenset[str], total: Callable[[str], int]) -> Iterator[str]:
    if "verdicts" in needs:
        yield f'each response is followed by "{GOOD}" or "{BAD}" by its label, and only that is predicted'
    if "comparisons" in needs:
        shown = f"{total('num_compared')} pairs are shown in both orders"
        yield f'{shown}, followed by "{FIRST}" or "{SECOND}" for the better one, and only that is predicted'
