"""An estimate as a page of text, or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from prefopt.console import PLAIN, print_table
from prefopt.plan.estimate import Estimate, Stage
from prefopt.plan.machines import GIB
from prefopt.plan.memory import PARTS, Memory

if TYPE_CHECKING:
    from rich.console import Console

EXPLAINED = {
    "masters": "masters (float32)",
    "buffers": "buffers, exchange",
    "reference": "live reference",
    "framework": "framework (assumed)",
}


def print_estimate(found: Estimate, console: Console) -> None:
    """A page that fits 80 columns."""
    for line in _head(found):
        console.print(line, highlight=False, markup=False)
    print_table(console, _memory_table(found))
    _print_verdict(found, console)
    print_table(console, _stage_table(found))
    for line in (*_speed(found), *_disk(found)):
        console.print(line, highlight=False, markup=False)
    console.print("\nassumed", style="bold", **PLAIN)
    for sentence in found.assumed:
        console.print(f"- {sentence}", highlight=False, markup=False)


def to_json(found: Estimate) -> str:
    """Everything in bytes, seconds and operations."""
    memories = found.memories
    values: dict[str, Any] = {
        "run": found.run.name,
        "model": {
            "path": found.model,
            "source": found.shape.source,
            "parameters": found.shape.total,
            "trainable": found.shape.trainable,
        },
        "place": {
            "device": found.place.device.name,
            "nodes": found.place.num_nodes,
            "per_node": found.place.per_node,
            "ranks": found.place.ranks,
            "operations_per_second_of_a_rank": found.place.rate,
            "bytes_per_second_of_a_rank": found.place.network.rate if found.place.ranks > 1 else None,
        },
        "engine": found.sharding.name,
        "steps": found.work.steps,
        "step": {
            **asdict(found.work.step),
            "unit": found.work.unit,
            "micro_batches_of_a_rank": found.work.micro_batches,
            "seconds": found.step_seconds,
            "compute_seconds": found.compute,
            "exchange_seconds": found.exchange,
            "exposed_seconds": found.exposed,
            "tokens_per_second": found.work.step.tokens / found.step_seconds,
            "units_per_second": found.work.step.units / found.step_seconds,
        },
        "memory": {
            name: _memory(getattr(memories, name))
            for name in ("score", "train", "evaluate", "save")
            if _has(found, name)
        },
        "sent_in_a_step": asdict(found.traffic),
        "stages": [{**asdict(stage), "memory": None, "total_seconds": stage.total_seconds} for stage in found.stages],
        "seconds": found.seconds,
        "disk": {**asdict(found.disk), "total": found.disk.total},
        "verdict": asdict(found.verdict),
        "assumed": list(found.assumed),
        "notes": list(found.work.notes),
    }
    for stage in values["stages"]:
        del stage["memory"]
    return json.dumps(values, indent=1)


def _memory(memory: Memory) -> dict[str, Any]:
    return {**memory.parts, "total": memory.total, "host": memory.host, "moment": memory.moment}


def _has(found: Estimate, stage: str) -> bool:
    return any(s.memory is not None and s.name.split()[0] == stage for s in found.stages)


def _head(found: Estimate) -> list[str]:
    place, shape, work = found.place, found.shape, found.work
    devices = f"{place.per_node} x {place.device.name}"
    nodes = f"{place.num_nodes} nodes of {devices}" if place.num_nodes > 1 else devices
    trained = "all trained" if shape.trainable == shape.total else f"{shape.trainable:,} trained"
    held_out = f", {work.evaluated.rows:,} held out" if work.evaluated.rows else ""
    times = f"{work.micro_batches:.3g} micro-batch{'es' if work.micro_batches != 1 else ''} a rank"
    return [
        f"{found.run.name}: {nodes}, {place.ranks} rank{'s' if place.ranks > 1 else ''}, {found.sharding.name}",
        f"model: {found.model}, {shape.total:,} parameters, {trained} ({shape.source})",
        f"data: {work.train.rows:,} rows{held_out} ({work.source})",
        f"run: {work.steps:,} steps of {work.step.units:,} {work.unit} and {work.step.tokens:,} tokens, {times}",
        *work.notes,
    ]


def _memory_table(found: Estimate) -> Any:
    from rich.table import Table

    shown = [name for name in ("score", "train", "evaluate", "save") if _has(found, name)]
    table = Table(title=f"Memory of a {'process' if found.place.is_cpu else 'GPU'}, GiB", title_justify="left")
    table.add_column("part")
    for name in shown:
        moment = found.memories.train.moment if name == "train" else ""
        table.add_column(f"{name} ({moment})" if moment else name, justify="right")
    memories = [getattr(found.memories, name) for name in shown]
    for part in PARTS:
        values = [memory.parts[part] for memory in memories]
        if any(values):
            table.add_row(EXPLAINED.get(part, part), *(_gib(value) if value else "" for value in values))
    table.add_section()
    table.add_row("in all", *(_gib(memory.total) for memory in memories), style="bold")
    if any(memory.host for memory in memories):
        table.add_row("host, besides", *(_gib(memory.host) if memory.host else "" for memory in memories))
    return table


def _print_verdict(found: Estimate, console: Console) -> None:
    verdict = found.verdict
    console.print(
        f"{verdict.word}: {_gib(verdict.needed)} of {_gib(verdict.memory)} GiB, in stage {verdict.stage}",
        style="bold",
        **PLAIN,
    )
    for sentence in verdict.advice:
        console.print(f"  {sentence}", highlight=False, markup=False)


def _stage_table(found: Estimate) -> Any:
    from rich.table import Table

    table = Table(title="Stages; operations and traffic of one rank", title_justify="left")
    for column in ("stage", "times", "each", "TFLOP", "sent GiB", "disk GiB", "in all"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in found.stages:
        table.add_row(*_stage_row(stage))
    table.add_section()
    table.add_row("the run", "", "", "", "", "", _duration(found.seconds), style="bold")
    return table


def _stage_row(stage: Stage) -> list[str]:
    return [
        stage.name,
        f"{stage.times:,}",
        _duration(stage.seconds),
        f"{stage.operations / 1e12:,.4g}" if stage.operations else "",
        _gib(stage.sent) if stage.sent else "",
        _gib(stage.written) if stage.written else "",
        _duration(stage.total_seconds),
    ]


def _speed(found: Estimate) -> list[str]:
    step, seconds = found.work.step, found.step_seconds
    line = (
        f"speed: {step.tokens / seconds:,.0f} tokens/s, {step.units / seconds:,.3g} {found.work.unit}/s;"
        f" a step computes {_duration(found.compute)}"
    )
    if found.place.ranks > 1:
        line += f", exchanges {_duration(found.exchange)}, of which {_duration(found.exposed)} show"
    lines = [line]
    if found.place.ranks > 1:
        weights = f", of weights {_gib(found.traffic.weights)}" if found.traffic.weights else ""
        lines.append(f"sent in a step by each rank, GiB: of gradients {_gib(found.traffic.gradients)}{weights}")
    return lines


def _disk(found: Estimate) -> list[str]:
    disk = found.disk
    columns = f", columns {_gib(disk.columns)}" if disk.columns else ""
    return [
        f"disk at most, GiB: {_gib(disk.total)}: {disk.checkpoints} checkpoints of {_gib(disk.checkpoint)},"
        f" model {_gib(disk.model)}, data {_gib(disk.data)}{columns}"
    ]


def _gib(value: float) -> str:
    gib = value / GIB
    return f"{gib:,.1f}" if gib >= 10 else f"{gib:.2f}" if gib >= 0.005 or not value else f"{gib:.1g}"


def _duration(seconds: float) -> str:
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
