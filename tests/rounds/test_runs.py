"""Loops of real commands: killed, stopped, failed, extended; what is done is done once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import last_step, make_model, make_pairs, prefopt, start

from prefopt.rounds.child import STARTS

pytestmark = pytest.mark.slow

SHORT = [
    "data.eval_size=8",
    "data.max_length=160",
    "optim.lr=1e-3",
    "train.batch_size=4",
    "train.tokens_per_micro_batch=200",
    "launch.device=cpu",
]
LOOP = {
    "rounds": 2,
    "inputs": {"policy": "model", "rows": "pairs.jsonl", "steps": 2, "sft": 1},
    "carry": {"policy": {"first": "{inputs.policy}", "then": "{dpo.model}"}},
    "steps": [
        {"name": name, "run": "train", "with": [*words, "data.train=[{path: {inputs.rows}}]", *SHORT]}
        for name, words in {
            "sft": ["loss=sft", "model.path={policy}", "train.max_steps={inputs.sft}"],
            "dpo": ["loss=dpo", "model.path={sft.model}", "train.max_steps={inputs.steps}", "train.epochs=1000"],
        }.items()
    ],
}
ALL = ["round-1/sft", "round-1/dpo", "round-2/sft", "round-2/dpo"]


class Place:
    """A working directory with a model, pairs and a recipe, and the loop that runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = folder / "loop"
        make_model(folder / "model")
        make_pairs(folder / "pairs.jsonl", 24)
        file = folder / "recipes" / "rounds" / "recipe" / "two.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(yaml.safe_dump(LOOP, sort_keys=False))

    def start(self, *words: str) -> subprocess.Popen[str]:
        return start(["rounds", "recipe=two", "dir=loop", *words], self.folder / "cache", self.folder)

    def finish(self, *words: str) -> subprocess.CompletedProcess[str]:
        return prefopt(["rounds", "recipe=two", "dir=loop", *words], self.folder / "cache", self.folder)

    def record(self) -> dict[str, Any]:
        file = self.loop / "rounds.json"
        return json.loads(file.read_text())["steps"] if file.exists() else {}

    def states(self) -> dict[str, str]:
        return {where: step["state"] for where, step in self.record().items()}

    def starts(self) -> dict[str, int]:
        """How often each step was started, by rounds.json, which must say what the logs say."""
        recorded = {where: len(step["starts"]) for where, step in self.record().items()}
        assert recorded == {where: (self.loop / f"{where}.log").read_text().count(STARTS) for where in recorded}
        return recorded

    def wait(self, process: subprocess.Popen[str], until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not until():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, self.record()
            time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.long
def test_a_loop_killed_in_its_second_step_goes_on_there_and_does_nothing_twice(place: Place) -> None:
    words = ["inputs.steps=40"]
    shell = place.start(*words)
    place.wait(shell, lambda: last_step(place.loop / "round-1/dpo") >= 2)
    children = of(shell)
    assert children
    second = place.finish(*words)
    assert second.returncode == 2
    assert f"loop is in use by process {shell.pid} since" in second.stderr
    shell.send_signal(signal.SIGKILL)
    shell.communicate()
    psutil.wait_procs(children, timeout=20)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert place.states() == {"round-1/sft": "done", "round-1/dpo": "begun"}

    done = place.finish(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.states() == dict.fromkeys(ALL, "done")
    assert place.starts() == {"round-1/sft": 1, "round-1/dpo": 2, "round-2/sft": 1, "round-2/dpo": 1}
    assert "round 1, dpo | " in done.stdout
    assert "round 1, sft | " not in done.stdout
    model = yaml.safe_load((place.loop / "round-2/sft/run.yaml").read_text())["model"]["path"]
    assert model == "loop/round-1/dpo/model"
    for where, step in place.record().items():
        result = json.loads((place.loop / where / "result.json").read_text())["after"]
        wanted = "rewards/margin" if "dpo" in where else "loss"
        (key,) = [key for key in result if key.startswith("eval/") and key.endswith(f"/{wanted}")]
        assert step["numbers"][wanted.rpartition("/")[2]] == pytest.approx(result[key])
        assert step["seconds"] > 0
    assert len(re.findall(r"^ *(?:sft|dpo) +[12] +\d+ +\w+ -?[\d.]+", done.stdout, re.M)) == 4

    # Killed when the last step had ended and nobody had noted it: the step finds that it is done.
    record = json.loads((place.loop / "rounds.json").read_text())
    record["steps"]["round-2/dpo"]["state"] = "begun"
    (place.loop / "rounds.json").write_text(json.dumps(record))
    trained = (place.loop / "round-2/dpo/result.json").stat().st_mtime_ns
    again = place.finish(*words)
    assert again.returncode == 0
    assert "3 of them done" in again.stdout
    assert "round 2, dpo | loop/round-2/dpo is done" in again.stdout
    assert (place.loop / "round-2/dpo/result.json").stat().st_mtime_ns == trained
    counts = {"round-1/sft": 1, "round-1/dpo": 2, "round-2/sft": 1, "round-2/dpo": 2}
    assert place.starts() == counts
    dry = place.finish(*words, "--dry-run", "rounds=3")
    assert dry.stdout.count("(done)") == 4
    assert "round 3, sft\n" in dry.stdout

    more = place.finish(*words, "rounds=3")
    assert more.returncode == 0, more.stdout + more.stderr
    assert place.starts() == {**counts, "round-3/sft": 1, "round-3/dpo": 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.long
def test_a_signal_is_handed_on_the_step_saves_and_the_loop_goes_on(number: signal.Signals, place: Place) -> None:
    words = ["inputs.steps=200", "rounds=1"]
    shell = place.start(*words)
    place.wait(shell, lambda: last_step(place.loop / "round-1/dpo") >= 2)
    shell.send_signal(number)
    out, err = shell.communicate(timeout=120)
    assert shell.returncode == 75, out + err
    assert f"prefopt: stopped by {number.name} in round 1, dpo; what is done is saved" in err
    assert list((place.loop / "round-1/dpo/checkpoints").glob("step-*"))
    assert place.states() == {"round-1/sft": "done", "round-1/dpo": "begun"}
    assert not (place.loop / "lock.json").exists()
    done = place.finish(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.starts() == {"round-1/sft": 1, "round-1/dpo": 2}
    assert last_step(place.loop / "round-1/dpo") == 200


@pytest.mark.long
def test_a_step_that_fails_is_named_with_its_last_lines_and_is_tried_again(place: Place) -> None:
    row = {"prompt": "p", "chosen": "yes", "rejected": "yes"}
    good = (place.folder / "pairs.jsonl").read_text()
    (place.folder / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    failed = place.finish("rounds=1")
    assert failed.returncode == 1
    assert "prefopt: round 1, sft failed with exit code 2\n" in failed.stderr
    assert "its last lines, all of them in loop/round-1/sft.log:" in failed.stderr
    said = [line for line in (place.loop / "round-1/sft.log").read_text().splitlines() if line.startswith("prefopt:")]
    assert said[-1] in failed.stderr
    assert place.states() == {"round-1/sft": "begun"}
    (place.folder / "pairs.jsonl").write_text(good)
    done = place.finish("rounds=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.starts() == {"round-1/sft": 2, "round-1/dpo": 1}


@pytest.mark.long
def test_a_step_whose_model_somebody_took_away_is_not_started(place: Place) -> None:
    shell = place.start("rounds=1", "inputs.steps=500")
    place.wait(shell, lambda: "round-1/dpo" in place.record())
    shell.send_signal(signal.SIGTERM)
    shell.communicate(timeout=120)
    assert shell.returncode == 75
    os.rename(place.loop / "round-1/sft/model", place.folder / "away")
    done = place.finish("rounds=1", "inputs.steps=500")
    assert done.returncode == 1
    assert "round 1, dpo needs loop/round-1/sft/model, which is not there" in done.stderr


@pytest.mark.long
def test_a_reader_that_goes_away_does_not_end_the_loop(place: Place) -> None:
    shell = place.start("rounds=1")
    assert shell.stdout is not None
    shell.stdout.readline()
    shell.stdout.close()
    assert shell.stderr is not None
    err = shell.stderr.read()
    assert shell.wait(timeout=200) == 0, err
    assert place.states() == {"round-1/sft": "done", "round-1/dpo": "done"}
