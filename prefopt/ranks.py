"""Ranks: how many, where, by which command, and how they end. torch is not imported in the parent."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from prefopt.errors import RunError, UserError
from prefopt.launch_check import check_batch_reaches
from prefopt.memory_check import check_device
from prefopt.nodes import find_nodes, spread_ports
from prefopt.settings import RunSettings

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class World:
    """device: cpu or cuda. num_processes: ranks, over all nodes. node_rank: which of the nodes this one is."""

    device: str
    num_processes: int
    num_nodes: int = 1
    node_rank: int = 0

    @property
    def per_node(self) -> int:
        """Ranks of each node."""
        return self.num_processes // self.num_nodes

    def recorded(self) -> dict[str, Any]:
        """What the manifest keeps: that which is the same on every node."""
        return {"device": self.device, "num_processes": self.num_processes, "num_nodes": self.num_nodes}


def plan_world(run: RunSettings) -> World:
    """Where the run takes place, by its settings, SLURM's environment and what this machine has.

    Raises: UserError where GPUs are asked for that are not there, settings do not fit the nodes, or the batch is
        smaller than the world.
    """
    launch = run.launch
    num_nodes, node_rank = find_nodes(launch)
    num_gpus = 0 if launch.device == "cpu" else count_gpus()
    if launch.device == "cuda" and num_gpus == 0:
        raise UserError(
            "launch.device=cuda: this machine shows no GPU", "launch.device=cpu, or see CUDA_VISIBLE_DEVICES"
        )
    if launch.gpus_per_node is not None and launch.gpus_per_node > num_gpus:
        raise UserError(
            f"launch.gpus_per_node={launch.gpus_per_node}, and this machine shows {num_gpus} GPU(s)",
            f"launch.gpus_per_node={num_gpus}" if num_gpus else "leave it out, or see CUDA_VISIBLE_DEVICES",
        )
    device = "cuda" if num_gpus else "cpu"
    num_processes = launch.num_processes or num_nodes * (launch.gpus_per_node or num_gpus or 1)
    if device == "cuda" and num_processes > num_nodes * num_gpus:
        each = "" if num_nodes == 1 else f" on {num_nodes} nodes"
        raise UserError(
            f"launch.num_processes={num_processes}{each}, and this machine shows {num_gpus} GPU(s)",
            f"launch.num_processes={num_nodes * num_gpus}, or launch.device=cpu",
        )
    check_batch_reaches(run, num_processes)
    check_device(run, device)
    return World(device, num_processes, num_nodes, node_rank)


def count_gpus() -> int:
    """Visible NVIDIA GPUs, told by the driver's tools and CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.split(",")[0].strip() in ("", "-1"):
        return 0
    present = _gpus_of_machine()
    if visible is None or present == 0:
        return present
    count = 0
    for entry in visible.split(","):
        name = entry.strip()
        # CUDA stops at the first entry that names no device; names that are not numbers are identifiers.
        if name in ("", "-1") or (name.isdigit() and int(name) >= present):
            break
        count += 1
    return count


def _gpus_of_machine() -> int:
    if shutil.which("nvidia-smi"):
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        return sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if done.returncode == 0 else 0
    driver = Path("/proc/driver/nvidia/gpus")
    return len(list(driver.iterdir())) if driver.is_dir() else 0


def needs_accelerate(run: RunSettings, world: World) -> bool:
    """One plain process is started directly: `accelerate launch` would import for three seconds and add nothing."""
    return world.num_processes > 1 or run.deepspeed.config is not None


def command(run: RunSettings, world: World, port: int, host: str = "") -> list[str]:
    """The command line that starts this node's ranks of the run in `run.dir`.

    host, port: where the ranks find each other; the host is node 0, and is told where there are several nodes.
    """
    if not needs_accelerate(run, world):
        return [sys.executable, "-m", "prefopt.train", run.dir]
    # `--cpu` starts one process whatever --num_processes says; --multi_gpu with ACCELERATE_USE_CPU starts them all.
    kind = "--use_deepspeed" if run.deepspeed.config is not None else "--multi_gpu"
    return [
        *(sys.executable, "-m", "prefopt.accelerate_launch", run.dir),
        *("--config_file", str(Path(run.dir) / "accelerate.yaml")),
        *(kind, "--num_machines", str(world.num_nodes), "--num_processes", str(world.num_processes)),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(port)),
        *(_several_nodes(run, world, host) if world.num_nodes > 1 else ()),
        *("-m", "prefopt.train", run.dir),
    ]


def _several_nodes(run: RunSettings, world: World, host: str) -> list[str]:
    # c10d, the other rendezvous, would let either node become the host of the store; static says that it is node 0.
    flags = ["--machine_rank", str(world.node_rank), "--main_process_ip", host, "--rdzv_backend", "static"]
    # Else accelerate hands over to DeepSpeed's launcher, which wants to reach the other nodes by ssh.
    return flags + (["--deepspeed_multinode_launcher", "standard"] if run.deepspeed.config is not None else [])


def accelerate_config(run: RunSettings, world: World) -> str:
    """The file given to `accelerate launch`: without one it would read the user's default_config.yaml."""
    kind = "DEEPSPEED" if run.deepspeed.config is not None else "MULTI_GPU"
    return (
        "# The flags on the command line say the rest; this file keeps a default_config.yaml of the user's out.\n"
        "compute_environment: LOCAL_MACHINE\n"
        f"distributed_type: {kind}\n"
        f"num_machines: {world.num_nodes}\nnum_processes: {world.num_processes}\n"
        "mixed_precision: 'no'\nuse_cpu: false\ndebug: false\n"
    )


def environment(run: RunSettings, world: World) -> dict[str, str]:
    """What the ranks' environment has besides the user's."""
    added = {
        "PREFOPT_WORLD_SIZE": str(world.num_processes),  # a rank that sees another world refuses to train
        "TOKENIZERS_PARALLELISM": "false",
        # Spinning threads of one rank take the cores of the others: 3 s instead of 0.1 s a step was measured.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
    }
    if needs_accelerate(run, world):
        # Else the launcher dies of a signal that it was not told of, or kills ranks that are still saving after 30 s.
        added["PET_SIGNALS_TO_HANDLE"] = ",".join(number.name for number in FORWARDED)
        added["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = "300"
    threads = num_threads(run, world)
    if threads is not None:
        added["OMP_NUM_THREADS"] = str(threads)
    if world.device == "cpu":
        added["DS_ACCELERATOR"] = "cpu"  # also without DeepSpeed: libraries import it, and it would complain
    if run.deepspeed.config is not None:
        # DeepSpeed compiles with the ninja beside this Python, and looks for it on the PATH only.
        added["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if world.device == "cpu" and run.deepspeed.config is None:
        added["ACCELERATE_USE_CPU"] = "1"
    elif world.device == "cuda" and run.train.deterministic:
        added["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what torch asks for before cuBLAS is deterministic
    return added


def num_threads(run: RunSettings, world: World) -> int | None:
    """Threads of a rank: the setting; on CPU else OMP_NUM_THREADS, else a share of the cores; None: torch's choice."""
    if run.launch.threads_per_process is not None:
        return run.launch.threads_per_process
    if world.device != "cpu":
        return None
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return int(os.environ["OMP_NUM_THREADS"])
    return max(1, num_cores() // world.per_node)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_port() -> int:
    """A port that is free now: inside a SLURM job one made of its number, so that no outgoing connection takes it."""
    for port in (*spread_ports(os.getpid()), 0):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RunError("this machine has no free port")


def shown(arguments: list[str], added: dict[str, str]) -> str:
    """A command with its environment, as one would type it."""
    tail = os.pathsep + os.environ.get("PATH", os.defpath)
    words = [
        f'PATH="{value.removesuffix(tail)}{os.pathsep}$PATH"' if key == "PATH" else f"{key}={shlex.quote(value)}"
        for key, value in added.items()
    ]
    return " ".join([*words, shlex.join(arguments)])


def run_ranks(arguments: list[str], added: dict[str, str], started: Callable[[int], None]) -> int:
    """Start the ranks, forward signals to them, and give their exit code (128 + number for a signal).

    started: called with the process id. The ranks have a session of their own, so that each signal reaches them once,
    through this process, and not a second time from the terminal.

    Raises: RunError where the process cannot be started.
    """
    process: subprocess.Popen[bytes] | None = None
    received: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if process is not None and process.poll() is None:
            process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        try:
            process = subprocess.Popen(arguments, env={**os.environ, **added}, start_new_session=True)
        except OSError as error:
            raise RunError(f"{arguments[0]} cannot be started: {error.strerror}") from None
        for number in received:  # one that came before there was anybody to forward it to
            process.send_signal(number)
        started(process.pid)
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
