"""The hosts of a job working as one: one process each, joined by torch.distributed."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from classifier.errors import UserError
from training.environment import Hosts

PORT = 29400
NAME_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Cluster:
    """This host's place among the hosts of the job."""

    rank: int
    world_size: int

    @property
    def is_first(self) -> bool:
        """Whether this host writes the model, the logs and the checkpoints."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all hosts."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def check_equal(self, value: str, message: str) -> None:
        """Make sure that all hosts have the same `value`; else all raise.

        Raises:
            UserError: with `message`.
        """
        if self.anywhere(self.from_first(value) != value):
            raise UserError(message)

    def anywhere(self, value: bool) -> bool:  # noqa: FBT001 - the value is what it is about
        """Tell whether `value` is true on any host."""
        return bool(self.total(torch.tensor(int(value))).item())

    def from_first(self, state: object) -> object:
        """Return the first host's `state` on every host."""
        if self.world_size == 1:
            return state
        states = [state]
        torch.distributed.broadcast_object_list(states)
        return states[0]


@contextmanager
def joined(hosts: Hosts) -> Iterator[Cluster]:
    """Join the hosts of the job; a single host needs nothing.

    Raises:
        UserError: the first host's name does not resolve.
    """
    cluster = Cluster(rank=hosts.rank, world_size=len(hosts.names))
    if cluster.world_size == 1:
        yield cluster
        return
    first = hosts.names[0]
    _wait_for_name(first)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", hosts.network_interface)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", hosts.network_interface)
    torch.distributed.init_process_group(
        # Both: tensors of the GPU travel by NCCL, those of the CPU by Gloo.
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"tcp://{first}:{PORT}",
        rank=cluster.rank,
        world_size=cluster.world_size,
    )
    try:
        yield cluster
        # No host leaves while another still works: Local Mode ends all with the first.
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


def _wait_for_name(name: str) -> None:
    """Wait for the host's name to resolve, which can take a while after the start."""
    deadline = time.monotonic() + NAME_TIMEOUT_SECONDS
    while True:
        try:
            socket.getaddrinfo(name, PORT)
        except OSError as error:
            if time.monotonic() > deadline:
                message = f"host {name} of resourceconfig.json does not resolve: {error}"
                raise UserError(message) from error
            time.sleep(1)
        else:
            return
