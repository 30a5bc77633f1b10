"""Where a run computes: one device by plain torch, several or several nodes by lightning-fabric.

Fabric starts the processes (or finds those that torchrun or Slurm started) and connects them. The
gradients are added up here, in one piece, so that a task may call any method of its module; for
models of a few million weights that costs nothing against overlapping it with the backward pass.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cardiogen.base import CardiogenError

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, eq=False)
class Processes:
    """The processes of a run, as one of them sees them.

    Attributes:
        device: of this process.
        rank: of this process; 0 writes the files.
        count: of all processes.
        fabric: what connects them; None for a single one.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    fabric: Any = None

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over processes, in place."""
        if self.fabric is not None:
            torch.distributed.all_reduce(tensor)

    def from_first(self, value: Any) -> Any:
        """Return what process 0 has: a number, text, or None."""
        return value if self.fabric is None else self.fabric.broadcast(value)

    def share_weights(self, module: torch.nn.Module) -> None:
        """Give every process the weights of process 0."""
        if self.fabric is not None:
            for tensor in (*module.parameters(), *module.buffers()):
                torch.distributed.broadcast(tensor.detach(), 0)


def find_device(name: Device) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` names.

    Raises:
        CardiogenError: R05 for CUDA where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise CardiogenError(
            "R05", "--device", found="no CUDA device", expected="one", remedy="--device cpu"
        )
    if name == "cpu" or not found:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def check_devices(
    device: Device = "auto", *, devices: int = 1, num_nodes: int = 1
) -> torch.device:
    """Return the device of :func:`launch`, or refuse as it does, without starting a process."""
    if devices < 1 or num_nodes < 1:
        raise ValueError(
            f"devices and num_nodes must be at least 1, got {devices} and {num_nodes}"
        )
    place = find_device(device)
    if devices * num_nodes > 1 and importlib.util.find_spec("lightning_fabric") is None:
        raise CardiogenError(
            "U30", "--devices", found=f"{devices} x {num_nodes} without lightning-fabric",
            expected="lightning-fabric, which several devices need",
            remedy="pip install 'cardiogen[train]', or --devices 1",
        )  # fmt: skip
    return place


def this_rank() -> int:
    """Return the rank of this process, once a run launched; 0 where it is the only one."""
    parallel = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if parallel else 0


def launch(device: Device = "auto", *, devices: int = 1, num_nodes: int = 1) -> Processes:
    """Return this process among those of the run, after starting the others.

    Args:
        device: kind of device.
        devices: of every node. On one machine, fabric starts the running command again for each
            but the first; under torchrun or Slurm they are there already.
        num_nodes: number of machines.

    Raises:
        CardiogenError: R05 for CUDA where there is none, U30 where several devices are asked for
            and lightning-fabric is not installed.
    """
    place = check_devices(device, devices=devices, num_nodes=num_nodes)
    if devices == num_nodes == 1:
        return Processes(place)
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=place.type, devices=devices, num_nodes=num_nodes, strategy="ddp")
    fabric.launch()
    return Processes(fabric.device, fabric.global_rank, fabric.world_size, fabric)
