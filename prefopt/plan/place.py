"""Where a run would take place: devices, nodes and links, as the settings and the command line say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from prefopt.errors import UserError
from prefopt.launch_check import check_batch_reaches
from prefopt.plan.machines import LINK_SHARE, Device, Network, find_device, find_network
from prefopt.plan.shape import Shape
from prefopt.ranks import World, count_gpus, num_cores, num_threads
from prefopt.settings import RunSettings

USUAL_GPU = "h100"

GPU_SHARE = 0.4
"""Of a GPU's peak rate in training: 38 to 43 % on H100s were published of Llama 3, arXiv 2407.21783, table 4."""
CPU_SHARE = 0.75
"""Of the rate of a CPU's own matrix product: 62 to 85 % were measured, docs/benchmarks.md."""


class Wished(NamedTuple):
    """What the command line says of the machine; None: not said."""

    gpu: str | None = None
    interconnect: str | None = None
    mfu: float | None = None


@dataclass(frozen=True)
class Place:
    """device: one of each rank; on a CPU the share of a rank. rate: operations a second of a rank. share: of the peak.
    assumed: what nobody said.
    """

    device: Device
    num_nodes: int
    per_node: int
    network: Network
    peak: float
    share: float
    assumed: tuple[str, ...]

    @property
    def ranks(self) -> int:
        return self.num_nodes * self.per_node

    @property
    def rate(self) -> float:
        return self.peak * self.share

    @property
    def is_cpu(self) -> bool:
        return self.device.name == "cpu"


def find_place(run: RunSettings, wished: Wished, shape: Shape, compute: int) -> Place:
    """compute: bytes of a number in matrix products.

    Raises: UserError for names that there are not, a share beyond 1, and ranks that do not fit the nodes.
    """
    launch = run.launch
    assumed = []
    name = wished.gpu
    if name is None:
        name = "cpu" if launch.device == "cpu" else USUAL_GPU
        if launch.device != "cpu":
            assumed.append(f"the GPU is an {name}; another: --gpu NAME")
    device = find_device(name)
    if device.name != "cpu" and launch.device == "cpu":
        raise UserError(f"--gpu {name} has no effect: launch.device is cpu", "launch.device=auto, or leave it out")
    if wished.mfu is not None and not 0 < wished.mfu <= 1:
        raise UserError(f"--mfu must be above 0 and at most 1, not {wished.mfu:g}", "0.4 for instance")
    num_nodes = launch.num_nodes or 1
    per_node = _ranks_per_node(run, num_nodes, device.name == "cpu")
    check_batch_reaches(run, num_nodes * per_node)
    network = find_network(wished.interconnect, device, num_nodes, per_node)
    if device.name == "cpu":
        threads = num_threads(run, World("cpu", num_nodes * per_node, num_nodes)) or 1
        device, peak = _this_machine(device, shape, compute, per_node, threads)
    else:
        peak = device.bf16 if compute == 2 else device.float32
    share = wished.mfu or (CPU_SHARE if device.name == "cpu" else GPU_SHARE)
    precision = "bfloat16" if compute == 2 else "float32"
    assumed.append(
        f"{share:.0%} of {peak / 1e12:,.3g} TFLOP/s of {precision} ({device.source}), operations that are repeated"
        " included; another: --mfu"
    )
    if num_nodes * per_node > 1:
        links = f"{network.within} within nodes" if per_node > 1 else ""
        between = f"{network.between} between them" if network.between else ""
        links = ", ".join(filter(None, (links, between)))
        assumed.append(
            f"{links}: {network.rate / 1e9:,.3g} GB/s for what a rank sends, {LINK_SHARE:.0%} of the published rate"
        )
    return Place(device, num_nodes, per_node, network, peak, share, tuple(assumed))


def _ranks_per_node(run: RunSettings, num_nodes: int, is_cpu: bool) -> int:
    launch = run.launch
    if launch.num_processes is not None:
        return launch.num_processes // num_nodes
    if is_cpu:
        return 1
    return launch.gpus_per_node or count_gpus() or 1


def _this_machine(device: Device, shape: Shape, compute: int, ranks: int, threads: int) -> tuple[Device, float]:
    """This machine's memory, divided among ranks, and the matrix rate of one with so many threads."""
    import psutil

    rate = _matrix_rate(shape, compute, threads) * min(1.0, num_cores() / (ranks * threads))
    memory = psutil.virtual_memory().total / ranks
    return replace(device, memory=memory, bf16=rate, float32=rate), rate


def _matrix_rate(shape: Shape, compute: int, threads: int) -> float:
    """Operations a second of one of the model's own linear maps, forward and both products backward, best of five."""
    import time

    import torch

    torch.set_num_threads(threads)
    kind = torch.bfloat16 if compute == 2 else torch.float32
    x, gradient = torch.randn(512, shape.hidden).to(kind), torch.randn(512, shape.inner).to(kind)
    weight = torch.randn(shape.inner, shape.hidden).to(kind)
    seconds = 0.0
    for a, b in ((x, weight.T), (gradient, weight), (gradient.T, x)):
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - start)
        seconds += best
    return 3 * 2 * 512 * shape.hidden * shape.inner / seconds
