"""Devices and links by name: memory, peak rates, bandwidths, as their makers publish them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from prefopt.errors import UserError, did_you_mean

T = TypeVar("T")

GIB = 2**30
TERA, GIGA = 1e12, 1e9

LINK_SHARE = 0.75
"""Of a link's published rate that collective operations are assumed to reach."""


@dataclass(frozen=True)
class Device:
    """name. memory: bytes; 0: as much as this machine has. bf16, float32: operations a second at most, dense products.
    link: what joins it to the other devices of its node; rate: of it, bytes a second, one direction. source: who says
    so.
    """

    name: str
    memory: float
    bf16: float
    float32: float
    link: str
    rate: float
    source: str


PCIE4, PCIE5 = 32 * GIGA, 64 * GIGA

DEVICES = {
    device.name: device
    for device in (
        Device("h200", 140.4 * GIB, 989.4 * TERA, 66.9 * TERA, "nvlink", 450 * GIGA, "NVIDIA H200 SXM data sheet"),
        Device("h100", 79.6 * GIB, 989.4 * TERA, 66.9 * TERA, "nvlink", 450 * GIGA, "NVIDIA H100 SXM data sheet"),
        Device("h100-pcie", 79.6 * GIB, 756.4 * TERA, 51.2 * TERA, "pcie-5", PCIE5, "NVIDIA H100 PCIe data sheet"),
        Device("a100-80", 79.3 * GIB, 312 * TERA, 19.5 * TERA, "nvlink", 300 * GIGA, "NVIDIA A100 SXM data sheet"),
        Device("a100-40", 39.4 * GIB, 312 * TERA, 19.5 * TERA, "nvlink", 300 * GIGA, "NVIDIA A100 SXM data sheet"),
        Device("l40s", 44.5 * GIB, 362.0 * TERA, 91.6 * TERA, "pcie-4", PCIE4, "NVIDIA L40S data sheet"),
        Device("4090", 23.5 * GIB, 165.2 * TERA, 82.6 * TERA, "pcie-4", PCIE4, "NVIDIA Ada architecture paper"),
        Device("cpu", 0, 0, 0, "loopback", 1 * GIGA, "this machine, its matrix product measured now"),
    )
}
"""float32 is the rate without TF32, which torch leaves off. Memory is what the driver shows of the published size."""


@dataclass(frozen=True)
class Link:
    """rate: bytes a second, one direction; of each device, or of a node where `is_of_node`. between: of nodes."""

    name: str
    rate: float
    between: bool
    is_of_node: bool = False


LINKS = {
    link.name: link
    for link in (
        Link("nvlink", 0, between=False),
        Link("pcie-4", PCIE4, between=False),
        Link("pcie-5", PCIE5, between=False),
        Link("infiniband-400", 50 * GIGA, between=True),
        Link("infiniband-200", 25 * GIGA, between=True),
        Link("ethernet-400", 50 * GIGA, between=True, is_of_node=True),
        Link("ethernet-100", 12.5 * GIGA, between=True, is_of_node=True),
        Link("ethernet-25", 3.125 * GIGA, between=True, is_of_node=True),
        Link("ethernet-10", 1.25 * GIGA, between=True, is_of_node=True),
    )
}
"""InfiniBand has a card for each device (as in DGX machines), Ethernet one for a node. nvlink: the device's own."""

BETWEEN_NODES = "infiniband-400"
"""Where nobody names another."""


def find_device(name: str) -> Device:
    """A device by its name.

    Raises: UserError naming the nearest.
    """
    return _find("--gpu", name, DEVICES)


@dataclass(frozen=True)
class Network:
    """within, between: names. rate: bytes a second that a rank's messages flow at, through the slowest of both."""

    within: str
    between: str | None
    rate: float


def find_network(named: str | None, device: Device, num_nodes: int, devices_per_node: int) -> Network:
    """The links that ranks talk over.

    named: names of links, one within nodes and one between them at most, with a comma between. In a ring over all
    devices, what a rank sends in all leaves each node once: a node's cards carry it together.

    Raises: UserError for a name that there is not, or that has no effect.
    """
    within, within_rate = device.link, device.rate
    between, between_rate = None, float("inf")
    chosen = [_find("--interconnect", name, LINKS) for name in (named or "").split(",") if name]
    if num_nodes > 1 and not any(link.between for link in chosen):
        chosen.append(LINKS[BETWEEN_NODES])
    if len({link.between for link in chosen}) < len(chosen):
        raise UserError(f"--interconnect {named} names two links of a kind", "one within nodes, one between them")
    for link in chosen:
        if link.between and num_nodes == 1:
            raise UserError(
                f"--interconnect {link.name} has no effect: it joins nodes, and there is one", "leave it out"
            )
        if link.name == "nvlink" and device.link != "nvlink":
            raise UserError(f"--interconnect nvlink: {device.name} has none", "--interconnect pcie-4")
        if link.between:
            between, between_rate = link.name, link.rate * (1 if link.is_of_node else devices_per_node)
        elif link.rate:
            within, within_rate = link.name, link.rate
    rates = ([within_rate] if devices_per_node > 1 else []) + ([between_rate] if num_nodes > 1 else [])
    return Network(within, between, LINK_SHARE * min(rates, default=float("inf")))


def _find(option: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise UserError(f"{option}: {name!r} is not known", did_you_mean(name, known))
    return known[name]
