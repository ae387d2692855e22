"""What differs between the last start of a run and this one, and what of it a user may accept by `--allow-change KEY`.

Compared are the settings that decide the numbers, the encoded data (rows, template, tokenizer) and the code of the
methods. What is accepted goes into the manifest: later starts are compared with what this one ran with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefopt.config import deciding, identity
from prefopt.errors import UserError, did_you_mean
from prefopt.fill import from_mapping
from prefopt.loss_code import loss_code
from prefopt.losses import make_loss
from prefopt.manifest import Difference, changes_record, differences, flat, runs_with
from prefopt.settings import RunSettings

DATA, CODE = "data", "code"
"""Keys of what is no setting: the fingerprint of the encoded data, and the code of the methods."""

NOTHING_TO_ALLOW = "leave it out: such a folder takes other settings as they are"
"""What to do where the run in a folder has nothing that a change could harm."""

_DECIDES_NO_ROW = "data.max_drop_fraction"
"""The setting of the data of which their fingerprint does not depend, among those that are compared."""

_OTHER_WEIGHTS = "what the checkpoints hold was learnt on top of other weights"
_OTHER_ADAPTERS = "the adapters in the checkpoints are others"
_OTHER_STATES = "the checkpoints hold weights and optimiser states of the other kind"

NEVER = {
    "model.path": _OTHER_WEIGHTS,
    "model.revision": _OTHER_WEIGHTS,
    "model.lora": _OTHER_ADAPTERS,
    "model.lora.r": _OTHER_ADAPTERS,
    "model.lora.alpha": "it scales what the adapters in the checkpoints have learnt",
    "model.lora.target_modules": _OTHER_ADAPTERS,
    "model.lora.base": _OTHER_WEIGHTS,
    "model.dtype": _OTHER_STATES,
    "optim.bfloat16_weights": _OTHER_STATES,
    "optim.name": _OTHER_STATES,
}
"""Settings without which a checkpoint means nothing, and why: a change is refused whatever is allowed."""

_PLACES = (DATA, "train.batch_size", "train.seed")
"""What says which rows a step sees."""

_ANSWERS = (DATA, "sample.count", "sample.max_new_tokens", "sample.temperature", "sample.top_p")
"""What decides the answers of an untrained model, which a run that goes on can no longer ask."""


def compare(manifest: Mapping[str, Any], run: RunSettings, fingerprint: str | None) -> list[Difference]:
    """How `run` differs from what the manifest's last start ran with. fingerprint: of the data; None: not known yet."""
    found = differences(deciding(from_mapping(RunSettings, manifest["settings"])), deciding(run))
    old = manifest["data_fingerprint"]
    if fingerprint is not None and fingerprint != old:
        said = f"{DATA}: {old[:12]} -> {fingerprint[:12]} (rows, template or tokenizer)"
        found.append(Difference(DATA, old, fingerprint, said))
    before, now = manifest.get("loss_code", {}), loss_code(run.loss)
    if changed := [name for name in now if name in before and before[name] != now[name]]:
        said = f"{CODE}: loss {' and '.join(changed)} has changed since the run's last start"
        found.append(Difference(CODE, {n: before[n] for n in changed}, {n: now[n] for n in changed}, said))
    return found


def check_changes(
    folder: Path,
    found: Sequence[Difference],
    allowed: Sequence[str],
    manifest: Mapping[str, Any],
    run: RunSettings,
    data_known: bool,
    is_done: bool = False,
) -> None:
    """Refuse what differs and is not allowed, and what is allowed and does not differ.

    found: of `compare`. allowed: dotted keys, groups, places in lists, `data` or `code`; a setting of the data that
    differs stands for the rows that it makes others, too. data_known: whether the data were compared. is_done: whether
    the run in the folder is: then no change is offered, and none accepted.

    Raises: UserError that lists the differences, or names the key.
    """
    for key in allowed:
        if not (any(_covers(key, f.key) for f in found) or (key == DATA and not data_known)):
            raise _no_such_difference(key, found, run)
    never = {f.key: reason for f in found if (reason := _never(f, manifest, run))}
    accepted = {f.key for f in found if any(_covers(key, f.key) for key in allowed)}
    if any(key.startswith(f"{DATA}.") and key != _DECIDES_NO_ROW for key in accepted):
        accepted.add(DATA)
    left = [f for f in found if f.key in never or f.key not in accepted]
    if not left and is_done and allowed:
        raise UserError(f"--allow-change {allowed[0]}: {folder} is done", _start_from(folder, manifest))
    if not left:
        return
    listed = [f"{f} (cannot be allowed: {never[f.key]})" if f.key in never else str(f) for f in left]
    hint = "start a new run by dir=FOLDER, or repeat the settings of this one"
    if is_done:
        hint += f"; {_start_from(folder, manifest)}"
    elif not never:
        hint += ", or go on with what differs by --allow-change KEY for each"
    raise UserError(
        f"{folder} holds another run; it is left as it is. What differs (there -> here):\n  "
        + "\n  ".join(dict.fromkeys(listed)),
        hint,
    )


def check_nothing_allowed(
    folder: Path, allowed: Sequence[str], why: str, hint: str = "say by dir=FOLDER which run is to go on"
) -> None:
    """Raises: UserError where something is allowed to change though nothing goes on in `folder`, and why not."""
    if allowed:
        raise UserError(f"--allow-change {allowed[0]}: {folder} {why}", hint)


def go_on(
    manifest: dict[str, Any], run: RunSettings, fingerprint: str, start: dict[str, Any], folder: Path
) -> list[str]:
    """Put a start of a run that is there already into its manifest, with what it changes; lines that say so.

    start: as `start_record` gives it. folder: of the run.
    """
    changes, step = compare(manifest, run, fingerprint), newest_step(folder)
    lines = list(_said(changes, run, step))
    if "loss_code" not in manifest:
        lines.append("this run was begun by an older prefopt, which noted no code of the loss: it cannot be compared")
        manifest["loss_code"] = loss_code(run.loss)
    if changes:
        start["changes"] = changes_record(changes, step)
        manifest |= runs_with(asdict(run), identity(run), fingerprint, loss_code(run.loss))
    manifest["starts"].append(start)
    return lines


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint by its name, whole or not; 0 where there is none."""
    names = [path.name.removeprefix("step-") for path in (folder / "checkpoints").glob("step-*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def changes_budget(changes: Sequence[Difference]) -> bool:
    """Whether the token budgets that a run has kept so far are to be forgotten: another one is stated."""
    return any(change.key == "train.tokens_per_micro_batch" for change in changes)


def _said(changes: Sequence[Difference], run: RunSettings, step: int) -> Iterator[str]:
    for change in changes:
        yield f"accepted from step {step + 1} on: {change}"
    if any(_covers(place, change.key) for change in changes for place in _PLACES):
        yield (
            "the position in the data is the number of steps done: what follows is taken from another order of rows,"
            " of which some may come again and others not at all"
        )
    is_judged_anew = any(change.key.split(".")[0] in (DATA, CODE, "loss") for change in changes)
    if run.train.best_metric is not None and is_judged_anew:
        yield f"the best {run.train.best_metric} so far was measured before that, and stays the one to beat"


def _never(change: Difference, manifest: Mapping[str, Any], run: RunSettings) -> str:
    """Why a change is refused whatever is allowed; empty where it may be allowed."""
    key, before = change.key, manifest["settings"]
    for never, reason in NEVER.items():
        if key == never or (never != "model.lora" and _covers(never, key)):
            return reason
    if key == "train.best_metric" and before["train"]["best_metric"] is not None:
        return "the best checkpoint so far was chosen by it"
    if run.sample.count and key in _ANSWERS:
        return "the answers before training were given with it; leave samples out by sample.count=0"
    heads = {"rewards" in make_loss(loss).needs for loss in (before["loss"], run.loss)} if key == "loss.name" else set()
    if len(heads) > 1:
        return "one of them trains a scalar head and the other the LM head"
    return ""


def _start_from(folder: Path, manifest: Mapping[str, Any]) -> str:
    """What to do instead of extending a finished run; adapters are no model to start from until they are merged."""
    of = manifest["settings"]["model"]
    if of.get("lora") is None:
        return f"a finished run is not extended; start from it: model.path={folder}/model dir=NEW"
    return (
        "a finished run is not extended; start from it:"
        f" prefopt export {folder} out=MERGED, then model.path=MERGED dir=NEW"
    )


def _covers(allowed: str, key: str) -> bool:
    """Whether a key is the allowed one, or lies in the allowed group."""
    return key == allowed or key.startswith(f"{allowed}.")


def _no_such_difference(key: str, found: Sequence[Difference], run: RunSettings) -> UserError:
    name, sign, _ = key.partition("=")
    if sign:
        return UserError(f"--allow-change {key}: takes a key without its value", f"--allow-change {name} {key}")
    known = {DATA, CODE, *(f.key for f in found)}
    for leaf, _ in flat(asdict(run)):
        parts = leaf.split(".")
        known |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    differing = ", ".join(f.key for f in found)
    if key in known:
        hint = f"leave it out; what differs: {differing}" if found else "leave it out: nothing differs"
        return UserError(f"--allow-change {key}: it does not differ from what the run was started with last", hint)
    near = did_you_mean(key, known)
    hint = near if near.startswith("did") else f"what differs: {differing or 'nothing'}"
    return UserError(f"--allow-change {key}: there is no such key", hint)
