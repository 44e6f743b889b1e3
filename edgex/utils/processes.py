"""Training in one process or several: joining the process group, sums, averaged gradients, barriers.

`accelerate launch -m edgex ...` and torch's `torchrun -m edgex ...` describe the group in the environment; Accelerate
joins it with the right backend (NCCL on GPUs, gloo on CPUs) and gives each process its device. Without a launcher
there is one process and Accelerate is not needed. (Lightning Fabric would serve as well, but its launcher runs script
files, and edgex is a module.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from edgex.errors import MissingExtraError, UsageError
from edgex.runtime.errors import install_hint
from edgex.utils import devices

TIMEOUT = datetime.timedelta(hours=24)
"""How long a process waits for another: one may find its labels cached while another has hours of them to make."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process among its group: index from 0, count, and the device that it computes on."""

    index: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes for the group."""
        return self.index == 0

    def share(self, items: Tensor) -> Tensor:
        """This process's part of items that all processes know: every `count`-th."""
        return items[self.index :: self.count]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value added up over the processes, the same result in all of them."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the processes, in one exchange."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """A barrier: returns when every process has called it."""
        self.sum([0.0])


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Joins the process group that a launcher described, and leaves it at the end; one process without a launcher.

    device: "auto", "cpu" or "cuda"; with several processes each takes a GPU of its own where they use GPUs.
    Raises UsageError for a numbered device with several processes, MissingExtraError without Accelerate.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        yield Processes(0, 1, devices.device_of(device))
        return
    where = devices.device_of(device)
    if where.index is not None:
        raise UsageError(
            f"expected device auto, cpu or cuda with several processes, found '{device}'", argument="device"
        )
    try:
        from accelerate import PartialState
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"several processes need the package accelerate: {install_hint('distributed')}"
        ) from error
    state = PartialState(cpu=where.type == "cpu", timeout=TIMEOUT)
    try:
        yield Processes(state.process_index, state.num_processes, state.device)
    finally:
        state.destroy_process_group()
