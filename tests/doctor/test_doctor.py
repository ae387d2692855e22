"""`prefopt doctor`: a line for each thing, in a state that says whether a run would work, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from prefopt.doctor.child import Answer, ask
from prefopt.doctor.command import findings, summary
from prefopt.doctor.devices import devices, gloo, nccl
from prefopt.doctor.extras import deepspeed_build
from prefopt.doctor.finding import Finding, State, ok
from prefopt.doctor.machine import container_limit, disk, required, threads
from prefopt.doctor.surroundings import hub_answer, offline_switch, slurm_programs

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
GPU = {"name": "NVIDIA H100", "free": 79 * GIB, "total": 80 * GIB, "bf16": True, "compute": "9.0"}
CPU_BUILD: dict[str, Any] = {
    "version": "2.6.0",
    "cuda": None,
    "hip": None,
    "available": False,
    "devices": [],
    "trouble": "",
    "nccl": "",
    "gloo": True,
    "flex": True,
}
CUDA_BUILD = {**CPU_BUILD, "cuda": "12.4", "available": True, "devices": [GPU], "nccl": "2.21.5"}


def doctor(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prefopt.cli", "doctor", *words],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )


def states(found: list[Finding]) -> dict[str, State]:
    return {f.name: f.state for f in found}


def test_this_machine_is_looked_at_and_its_token_not_shown() -> None:
    done = doctor("--json", HF_TOKEN="hf_secretsecretsecretsecretsecret12")
    found = {f["name"]: f for f in json.loads(done.stdout)["findings"]}
    assert {"python", "packages", "torch", "gloo", "NCCL", "cores", "memory", "DeepSpeed", "SLURM", "hub"} <= set(found)
    assert found["torch"]["state"] == found["gloo"]["state"] == "ok"
    assert "HF_HUB_OFFLINE=1" in found["hub"]["found"]
    assert "token found" in found["hub"]["found"]
    assert "secretsecret" not in done.stdout + done.stderr
    assert (done.returncode == 0) == ("problem" not in {f["state"] for f in found.values()})
    assert done.stderr == ""


def test_a_torch_that_cannot_be_imported_is_one_problem_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')\n")
    done = doctor(PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 1
    assert "problem torch: exit code 1: ImportError: libcudart.so.12: cannot open shared object file" in done.stdout
    assert "a run with default settings will fail" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_settings_are_refused() -> None:
    done = doctor("recipe=quickstart")
    assert done.returncode == 2
    assert "takes no settings" in done.stderr


def test_a_probe_that_hangs_or_fails_is_a_warning_and_the_next_one_is_asked() -> None:
    def hangs() -> list[Finding]:
        time.sleep(60)
        return []

    def fails() -> list[Finding]:
        raise RuntimeError("no such symbol\nmore")

    probes = [("disk", hangs, 0.1), ("driver", fails, 5.0), ("last", lambda: [ok("last", "here")], 5.0)]
    begun = time.monotonic()
    found = list(findings(probes))
    assert time.monotonic() - begun < 10
    assert [f.state for f in found] == [State.WARNING, State.WARNING, State.OK]
    assert found[0].found == "no answer within 0.1 s"
    assert found[1].found == "could not be asked: RuntimeError: no such symbol"


def test_a_child_that_hangs_dies_or_talks_nonsense_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "dies.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    (tmp_path / "talks.py").write_text("print('{\"a\": 1}')\nprint('bye')\n")
    (tmp_path / "says.py").write_text("print('hello')\nprint('{\"a\": 1}')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ask("hangs", [], 0.5).failed == "no answer within 0.5 s"
    assert ask("dies", [], 20).failed.startswith("signal 11")
    assert ask("talks", [], 20).failed == "exit code 0: it said nothing"
    assert ask("says", [], 20).said == {"a": 1}


def test_a_gpu_is_named_with_its_memory_and_bf16() -> None:
    found = list(devices(CUDA_BUILD, "550.54", None))
    assert set(states(found).values()) == {State.OK}
    assert found[-1].found == "NVIDIA H100, compute 9.0, 79.0 GiB free of 80.0 GiB, bf16 yes"


def test_a_cpu_build_beside_a_driver_is_a_problem() -> None:
    found = {f.name: f for f in devices(CPU_BUILD, "550.54", None)}
    assert found["GPU"].state is State.PROBLEM
    assert "CUDA build" in found["GPU"].advice


def test_a_driver_too_old_for_the_build_is_a_problem() -> None:
    found = {f.name: f for f in devices({**CUDA_BUILD, "available": False, "devices": []}, "470.1", None)}
    assert found["GPU"].state is State.PROBLEM
    assert "470.1" in found["GPU"].advice


def test_without_a_driver_the_cpu_is_meant() -> None:
    assert set(states(list(devices(CPU_BUILD, "", None))).values()) == {State.OK}


def test_hidden_gpus_full_ones_and_old_ones_are_warned_of() -> None:
    hidden = {**CUDA_BUILD, "available": False, "devices": []}
    assert states(list(devices(hidden, "550.54", "")))["GPU"] is State.WARNING
    full = {**CUDA_BUILD, "devices": [{**GPU, "free": 10 * GIB}, {**GPU, "bf16": False}]}
    found = states(list(devices(full, "550.54", None)))
    assert found["GPU 0"] is found["GPU 1"] is State.WARNING


def test_a_group_that_does_not_form_is_a_warning_because_one_process_needs_none() -> None:
    assert gloo(CPU_BUILD, Answer(failed="no answer within 60 s")).state is State.WARNING
    assert nccl(CUDA_BUILD, Answer(failed="exit code 1: ncclInternalError")).state is State.WARNING
    assert nccl(CUDA_BUILD, Answer({"sum": 1.0})).found.startswith("2.21.5")
    assert nccl(CPU_BUILD, None).state is State.OK


def test_a_package_that_is_missing_or_too_old_is_a_problem() -> None:
    assert required(["pytest>=1", "nothing-of-this-name>=2; extra == 'dev'"]).state is State.OK
    wrong = required(["pytest>=999", "nothing-of-this-name"])
    assert wrong.state is State.PROBLEM
    assert "pytest is " in wrong.found
    assert "nothing-of-this-name is missing" in wrong.found


def test_more_threads_than_cores_are_warned_of() -> None:
    assert threads(2, {"OMP_NUM_THREADS": "8"}).state is State.WARNING
    assert threads(8, {"OMP_NUM_THREADS": "8"}).state is State.OK


def test_the_limit_of_a_container_is_read_in_both_spellings(tmp_path: Path) -> None:
    assert container_limit(tmp_path) is None
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("1073741824\n")
    assert container_limit(tmp_path) == GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert container_limit(tmp_path) is None


def test_a_place_under_a_file_is_a_problem_and_one_not_yet_made_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert disk("runs", tmp_path / "file", "dir=FOLDER").state is State.PROBLEM
    assert disk("runs", tmp_path / "a/b/c", "dir=FOLDER").state is not State.PROBLEM


def test_deepspeed_without_compiler_or_ninja_names_both() -> None:
    found = deepspeed_build("0.18", lambda name: None, False, {})
    assert found.state is State.WARNING
    assert "C++ compiler" in found.advice
    assert "ninja" in found.advice
    assert deepspeed_build("0.18", lambda name: f"/bin/{name}", True, {}).state is State.OK
    assert deepspeed_build(None, lambda name: None, False, {}).state is State.OK


def test_slurm_with_a_program_missing_without_submitit_or_without_an_answer_is_warned_of() -> None:
    assert slurm_programs(lambda name: None, None, True).state is State.OK
    assert slurm_programs(lambda name: name if name == "sinfo" else None, None, True).state is State.WARNING
    assert slurm_programs(lambda name: name, "17", False).state is State.WARNING
    assert "inside of job 17; the controller answers" in slurm_programs(lambda name: name, "17", True).found
    silent = slurm_programs(lambda name: name, None, True, "SLURM's controller does not answer")
    assert (silent.state, "does not answer" in silent.found) == (State.WARNING, True)


def test_offline_is_a_wish_and_no_answer_a_warning() -> None:
    assert offline_switch({"HF_HUB_OFFLINE": "0"}) == ""
    assert offline_switch({"HF_HUB_OFFLINE": "1"}) == "HF_HUB_OFFLINE=1"
    assert hub_answer("offline", True, None).state is State.OK
    assert hub_answer("silence", True, False).state is State.WARNING


def test_the_last_line_counts() -> None:
    assert summary([State.OK]) == "all is well"
    assert "1 warning for others" in summary([State.OK, State.WARNING])
    assert summary([State.PROBLEM, State.PROBLEM, State.WARNING]).startswith("2 problems:")
