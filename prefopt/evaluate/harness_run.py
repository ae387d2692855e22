"""lm-evaluation-harness called by its Python API, and its results as figures. Needs the extra `harness`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prefopt.errors import RunError, UserError, did_you_mean
from prefopt.evaluate.measure import EvalPlace, Figure, Measured

WIDTH = 1.96
"""Standard errors on each side of a 95 % interval."""


class Asked(NamedTuple):
    """What `measure=harness` asks for; the fields are those of its settings."""

    tasks: Sequence[str]
    num_fewshot: int | None
    limit: int | None
    include_path: Path | None
    batch_size: int
    apply_chat_template: bool


class Metric(NamedTuple):
    """One number of a task. filter: what became of the answers before they were scored; "none" for nothing."""

    task: str
    name: str
    filter: str
    value: float
    stderr: float | None


def run_harness(asked: Asked, place: EvalPlace) -> Measured:
    """Load the model, run the tasks, hand back what the harness says.

    Raises: UserError for an unknown task or a model that cannot be used; RunError where data cannot be had.
    """
    import lm_eval

    folder = None if asked.include_path is None else str(asked.include_path)
    manager = _manager(asked.tasks, folder)
    for task in asked.tasks:
        if task not in manager.all_tasks:
            near = did_you_mean(task, manager.all_tasks)  # of thousands: where none is near, not all are listed
            hint = near if near.startswith("did") else _see(folder)
            raise UserError(f"measure.tasks: the harness has no task {task!r}", hint)
    model = _model(asked, place)
    try:
        results = lm_eval.simple_evaluate(
            model=model,
            tasks=list(asked.tasks),
            num_fewshot=asked.num_fewshot,
            batch_size=asked.batch_size,
            limit=asked.limit,
            apply_chat_template=asked.apply_chat_template,
            fewshot_as_multiturn=asked.apply_chat_template,
            task_manager=manager,
            log_samples=True,
        )
    except OSError as error:  # ConnectionError, FileNotFoundError and what the hub raises are of this kind
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise RunError(
            f"measure.tasks: data of {', '.join(asked.tasks)} cannot be had ({said})",
            "connect once so that they are cached, or give a task of your own over local files: measure.include_path",
        ) from error
    assert results is not None, "the harness gives results to the first process"
    return measured(results, asked, lm_eval.__version__)


def measured(results: Mapping[str, Any], asked: Asked, version: str) -> Measured:
    """The harness's results (`lm_eval.simple_evaluate`) as figures, tables, rows and notes. version: the harness's."""
    metrics = list(metrics_of(results))
    counts = {task: count["effective"] for task, count in results.get("n-samples", {}).items()}
    figures, table = {}, []
    for metric in metrics:
        name = f"{metric.task}/{metric.name}" + ("" if metric.filter == "none" else f"/{metric.filter}")
        count = _count(metric.task, counts, results.get("group_subtasks", {}))
        low = high = None
        if metric.stderr is not None:
            low, high = metric.value - WIDTH * metric.stderr, metric.value + WIDTH * metric.stderr
        figures[name] = Figure(metric.value, low, high, count)
        higher = results.get("higher_is_better", {}).get(metric.task, {}).get(metric.name)
        table.append({**metric._asdict(), "documents": count, "higher is better": higher})
    notes = [f"lm-evaluation-harness {version}"]
    tasks = []
    for task in counts:
        few_shot = results.get("n-shot", {}).get(task)
        samples = results.get("samples", {}).get(task, [])
        about = {
            "task": task,
            "version": str(results.get("versions", {}).get(task, "")),
            "num_fewshot": few_shot,
            "documents": counts[task],
            "hash": hash_of(samples),
        }
        tasks.append(about)
        notes.append(f"{task}: version {about['version']}, {few_shot} examples, hash {about['hash']}")
        if asked.num_fewshot is not None and few_shot != asked.num_fewshot:
            notes.append(f"{task}: measure.num_fewshot={asked.num_fewshot} had no effect; the task has {few_shot}")
    if asked.limit is not None:
        notes.append(f"at most {asked.limit} documents of each task: not comparable with published figures")
    return Measured(figures, {"metrics": table, "tasks": tasks}, list(_rows(results)), {}, tuple(notes))


def metrics_of(results: Mapping[str, Any]) -> Iterator[Metric]:
    """Every number of every task and group; their keys are "METRIC,FILTER" and "METRIC_stderr,FILTER"."""
    for task, values in results["results"].items():
        for key, value in values.items():
            name, comma, filter_ = key.partition(",")
            if not comma or name.endswith("_stderr") or not _is_number(value):
                continue
            stderr = values.get(f"{name}_stderr,{filter_}")
            yield Metric(task, name, filter_, float(value), float(stderr) if _is_number(stderr) else None)


def hash_of(samples: Sequence[Mapping[str, Any]]) -> str:
    """What the harness writes as task_hashes: sha256 over the hashes of document, prompt and target of each sample."""
    whole = "".join(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples)
    return hashlib.sha256(whole.encode()).hexdigest()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _count(task: str, counts: Mapping[str, int], groups: Mapping[str, Sequence[str]]) -> int:
    """Documents of a task, or of all tasks below a group."""
    return counts[task] if task in counts else sum(_count(below, counts, groups) for below in groups.get(task, ()))


def _rows(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for task, samples in results.get("samples", {}).items():
        for sample in samples:
            values = {name: sample[name] for name in sample.get("metrics", ()) if _is_number(sample.get(name))}
            filter_ = sample.get("filter", "none")
            place = f"{task}:{sample['doc_id']}" + ("" if filter_ == "none" else f":{filter_}")
            yield {"id": place, "task": task, **values}


def _manager(tasks: Sequence[str], folder: str | None) -> Any:
    """What knows the tasks. To list the harness's own takes seconds, which tasks of the folder do without; its groups
    and tags may name those, so that they do not."""
    from lm_eval.tasks import TaskManager

    if folder is not None:
        own = TaskManager(include_path=folder, include_defaults=False)
        if set(tasks) <= set(own.all_subtasks):
            return own
    return TaskManager(include_path=folder)


def _see(folder: str | None) -> str:
    names = "`lm_eval ls tasks` lists those it has"
    return names if folder is None else f"{names}; those of {folder} are its .yaml files with a key `task`"


def _model(asked: Asked, place: EvalPlace) -> Any:
    """The harness's own class for a model of transformers, on our device and in our precision."""
    from lm_eval.models.huggingface import HFLM

    from prefopt.data.tokenizer import load_tokenizer
    from prefopt.model.files import adapter_folder, base_of, model_folder

    adapters = adapter_folder(place.model)
    base = model_folder(place.model if adapters is None else base_of(adapters))
    own = adapters if adapters is not None and (adapters / "tokenizer_config.json").is_file() else base
    tokenizer: Any = str(own)
    if asked.apply_chat_template:
        tokenizer = load_tokenizer(str(own), chat_template=place.settings.chat_template)
        if tokenizer.chat_template is None:
            raise UserError(
                f"measure.apply_chat_template: {own} has no chat template", "set chat_template, or leave it false"
            )
    return HFLM(
        pretrained=str(base),
        tokenizer=tokenizer,
        peft=None if adapters is None else str(adapters),
        device=place.device,
        dtype=place.settings.dtype,
        batch_size=asked.batch_size,
        trust_remote_code=False,
        use_safetensors=True,
    )
