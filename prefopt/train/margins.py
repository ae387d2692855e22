"""Margin rewards: the rewards of MODPO's other objectives, as columns beside the data, scored once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from prefopt.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from prefopt.errors import RunError, UserError
from prefopt.model.adapters import load_merged
from prefopt.model.files import adapter_folder, adapters_fingerprint, base_of, fingerprint, model_folder
from prefopt.model.heads import HEAD, stored_tensors
from prefopt.model.layout import settle_layout
from prefopt.model.load import load_policy, load_reward_policy
from prefopt.model.policy import Policy
from prefopt.settings import MarginSettings
from prefopt.train.column_cache import cached_column, column_key
from prefopt.train.engine import Engine
from prefopt.train.rows import Rows
from prefopt.train.scoring import rewards, sequence_logps


def attach_margins(engine: Engine, rows: Rows, cache: Path, longest: int, say: Callable[[str], None]) -> None:
    """Give `rows` the margin rewards that `data.margins` lists, in its order; every rank must call.

    column: as in the data. length: minus the tokens of the response. implicit: beta * (logp of the model - logp of the
    reference). reward: what the reward model gives. Without `data.margins` the rows keep what the data have.
    Call after `attach_reference`, before the first update. longest: tokens of the longest sequence.

    Raises: UserError for a model that cannot serve; RunError where a margin is not finite.
    """
    wanted = engine.run.data.margins
    if all(margin.kind == "column" for margin in wanted):
        return
    of_data = _columns_of_data(rows, sum(margin.kind == "column" for margin in wanted))
    columns = []
    for number, margin in enumerate(wanted):
        if margin.kind == "column":
            column = next(of_data)
        elif margin.kind == "length":
            column = -rows.data.response_lengths.astype(np.float64)
        else:
            column = _scored(engine, f"data.margins.{number}", margin, rows, cache, longest, say)
        if not np.isfinite(column).all():
            place = int(np.searchsorted(rows.data.response_offsets, np.argmin(np.isfinite(column)), "right")) - 1
            raise RunError(f"data.margins.{number}: the margin of {rows[place].id} is not finite", "check that row")
        columns.append(column)
    rows.set_margins(np.stack(columns, axis=1))


def _columns_of_data(rows: Rows, count: int) -> Iterator[np.ndarray]:
    """The margins that the rows carry themselves, one column after the other: [responses] each."""
    if not count:
        return iter(())
    found = np.array([margins for row in rows.data for margins in row.margins or []], dtype=np.float64)
    return iter(found.reshape(rows.num_responses, count).T)


def _scored(
    engine: Engine,
    key: str,
    margin: MarginSettings,
    rows: Rows,
    cache: Path,
    longest: int,
    say: Callable[[str], None],
) -> np.ndarray:
    """[responses] margins by a model; its raw numbers are kept, so that another beta scores nothing again."""
    if engine.zero_stage == 3:
        raise UserError(f"{key}: a model beside the policy cannot be sharded yet", "use ZeRO-2 or DDP")
    assert margin.path is not None, "checks.py asks for it"
    name = ""
    if engine.is_main:
        _check_tokenizer(engine, key, margin.path)
        content = column_key(engine.run, rows, engine.policy.layout, _fingerprint(margin.path), margin.kind)
        name = f"{content}.npy"
    file = cache / "margins" / engine.gather(name)[0]
    share_prompts = engine.policy.shares_prompts
    if margin.kind == "reward":
        measure = rewards(Rows(rows.data, frozenset({"rewards"}), share_prompts))
    else:
        measure = sequence_logps(Rows(rows.data, frozenset(), share_prompts))
    what = f"{margin.path} ({margin.kind} margin)"
    column, _ = cached_column(engine, measure, file, what, lambda: _loaded(engine, key, margin, longest), say)
    if margin.kind == "reward":
        return column
    return margin.beta * (column - rows.reference)


@contextmanager
def _loaded(engine: Engine, key: str, margin: MarginSettings, longest: int) -> Iterator[Policy]:
    """The margin model, frozen, on this rank's device for as long as it scores."""
    assert margin.path is not None
    settings = engine.run.model
    policy: Policy
    if margin.kind == "reward":
        if f"{HEAD}.weight" not in stored_tensors(model_folder(margin.path)):
            raise UserError(f"{key}.path: {margin.path} has no trained scalar head", "train one: loss=reward_bt")
        policy = load_reward_policy(settings, margin.path, longest=longest, adapters=False)
    elif (adapters := adapter_folder(margin.path)) is not None:
        policy = load_merged(settings, adapters, longest=longest)
    else:
        policy = load_policy(settings, margin.path, longest=longest, adapters=False)
    policy = policy.to(engine.device).eval().requires_grad_(False)
    settle_layout(policy, policy, engine.policy.layout)
    with engine.accelerator.autocast():
        yield policy


def _fingerprint(path: str) -> str:
    adapters = adapter_folder(path)
    if adapters is None:
        return fingerprint(model_folder(path))
    return f"{fingerprint(model_folder(base_of(adapters)))} {adapters_fingerprint(adapters)}"


def _check_tokenizer(engine: Engine, key: str, path: str) -> None:
    """The rows are token ids of the policy's tokenizer: another model must read the same ids in the same way.

    Raises: UserError where the model at `path` has another tokenizer.
    """
    model = engine.run.model
    own = load_tokenizer(model.tokenizer or model.path, model.revision, None)
    folder = adapter_folder(path) or model_folder(path)
    if not any(folder.glob("tokenizer*")):
        raise UserError(f"{key}.path: {path} holds no tokenizer to compare with the policy's", "copy it there")
    if tokenizer_fingerprint(load_tokenizer(str(folder), None, None)) != tokenizer_fingerprint(own):
        raise UserError(
            f"{key}.path: {path} has another tokenizer than the policy, so that it would read other words",
            "score such a model beforehand and give its numbers as a column",
        )
