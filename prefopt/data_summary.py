"""What became of the rows, in a few lines: printed before every run."""

from __future__ import annotations

from typing import Any

from prefopt.settings import DataSettings


def data_lines(report: dict[str, Any], settings: DataSettings) -> list[str]:
    """One line a source with what was left out and why, one line for the sets, one for lengths.

    report: as `Prepared.report` has it. settings: as composed; sources are named as the user named them (demo://...).
    """
    lines = []
    named = [source.path for source in (*settings.train, *settings.eval.values())]
    for path, source in zip(named, report["sources"], strict=True):
        kept = f"{source['kept']} of {source['read']} rows"
        lines.append(
            f"{source['set']}: {kept} of {path} (format {source['format']}){_left_out(source)}{_labels(source)}"
        )
        lines += [f"  {sentence}" for sentence in source["conversions"]]
    sets = [f"{name} {one['rows']} rows, {one['pairs']} pairs" for name, one in report["sets"].items()]
    lines.append("sets: " + "; ".join(sets))
    for name, one in report["sets"].items():
        lines += [f"  {sentence}" for sentence in _twice(name, one["repeated"])]
        if one.get("prompts_also_in_train"):
            lines.append(f"  {one['prompts_also_in_train']} prompts of {name} are also trained on")
    total = report["total"]
    lines.append(
        f"tokens: prompt {_quantiles(total['prompt_tokens'])}, response {_quantiles(total['response_tokens'])};"
        f" EOS on {total['eos_kept']} responses"
    )
    if empty := total["empty_prompts"]:
        lines.append(f"  {empty} {'row has a prompt' if empty == 1 else 'rows have prompts'} without words; kept")
    if total["unknown_tokens"]:
        lines.append(
            f"  {total['unknown_tokens']} tokens are unknown: the tokenizer cannot spell what stands there, of a row or"
            " of the chat template; prefopt data shows them"
        )
    return lines


def _twice(name: str, repeated: dict[str, Any]) -> list[str]:
    """Nothing where no row is there twice. repeated: as `data/repeats.py` gives it."""
    same, looked_at = repeated["same"], repeated["looked_at"]
    if not same:
        return []
    named = ", ".join(f"{one['row']} is {one['of']}" for one in repeated["examples"] if one["same"])
    so_far = "" if looked_at == repeated["prompts"] else f", of the first {looked_at} that repeat a prompt"
    more = "" if same <= len(repeated["examples"]) else " ..."
    return [f"{same} of the rows of {name} {'is' if same == 1 else 'are'} there twice{so_far}: {named}{more}"]


def _left_out(source: dict[str, Any]) -> str:
    reasons = ", ".join(f"{reason} ({rows['count']})" for reason, rows in source["dropped"].items())
    cut = source["truncated"]["prompts"] + source["truncated"]["responses"]
    return (f"; left out: {reasons}" if reasons else "") + (f"; cut: {cut}" if cut else "")


def _labels(source: dict[str, Any]) -> str:
    labels = source.get("labels")
    return (
        "" if labels is None else f"; {labels['desirable']} desirable and {labels['undesirable']} undesirable responses"
    )


def _quantiles(lengths: dict[str, int] | None) -> str:
    return "none" if lengths is None else f"{lengths['p50']} (median) to {lengths['max']}"
