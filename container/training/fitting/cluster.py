"""The processes of a job on one or several hosts, connected by torch.distributed."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from container.classifier.errors import UserError
from container.training.fitting.batch_norm import synchronized
from container.training.sagemaker.environment import Hosts
from container.training.sagemaker.stop import Stop, Stopped
from container.training.sagemaker.supervisor import ConnectionLostError, Rank

# Hosts start one after another, and their names may resolve later.
RENDEZVOUS_TIMEOUT = timedelta(minutes=10)

# For a connection that is lost without being closed, and for the slowest host to decode images.
TIMEOUT = timedelta(minutes=30)

_POLL_SECONDS = 0.1

StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The processes of the job, seen from one of them."""

    rank: int
    world_size: int

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the model, the logs and the checkpoints."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all ranks, computed in place."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def check_equal(self, value: str, message: str) -> None:
        """Raise on all ranks unless all have the same `value`.

        Raises:
            UserError: with `message`.
        """
        if self.any_rank(self.from_first(value) != value)[0]:
            raise UserError(message)

    def any_rank(self, *flags: bool) -> tuple[bool, ...]:
        """Return which of the flags are true on at least one rank.

        All ranks must take the same branch at the same step, else a collective deadlocks.
        """
        if self.world_size == 1:
            return flags
        return tuple(self.total(torch.tensor(flags, dtype=torch.int64)).bool().tolist())

    def agreed(self, stop: Stop) -> Stop:
        """Return a stop that is requested on all ranks once it is on one.

        Reading it is a collective operation.
        """
        return stop if self.world_size == 1 else _AgreedStop(self, stop)

    def from_first(self, state: StateT) -> StateT:
        """Return the `state` of the first rank on all ranks."""
        if self.world_size == 1:
            return state
        states = [state]
        torch.distributed.broadcast_object_list(states)
        return states[0]

    @contextmanager
    def learning(self, module: nn.Module) -> Iterator[nn.Module]:
        """Yield the model to train: `module` with gradients that are averaged over the ranks.

        Its batch normalization uses statistics of all ranks. `requires_grad` of its parameters must
        not change within the block.
        """
        if self.world_size == 1:
            yield module
            return
        with synchronized(module):
            # Buffers are equal on all ranks: statistics of the same images.
            yield DistributedDataParallel(module, forward_sync_buffers=False)


class _AgreedStop(Stop):
    """A stop on which all ranks agree."""

    def __init__(self, cluster: Cluster, stop: Stop) -> None:
        self._cluster, self._stop = cluster, stop

    @property
    def requested(self) -> bool:
        return self._cluster.any_rank(self._stop.requested)[0]


@contextmanager
def joined(hosts: Hosts, stop: Stop) -> Iterator[Cluster]:
    """Connect the processes of the job, if it has several.

    Raises:
        UserError: a host did not start in time.
        ConnectionLostError: another process ended before its work was done.
        Stopped: a stop was requested, and other processes have ended or were not connected yet.
    """
    rank = Rank.given()
    if rank is None:
        yield Cluster(rank=0, world_size=1)
        return
    addresses: dict[str, str] = {}
    try:
        with _connected(hosts, rank, stop) as cluster:
            addresses = host_addresses(hosts)
            yield cluster
            # Wait for all ranks: SageMaker's Local Mode ends all hosts with the first.
            cluster.total(torch.zeros(1))
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, torch.distributed.DistError):
            raise
        if stop.requested:
            raise Stopped("stopped after other processes of the job had ended") from error
        raise ConnectionLostError(describe_loss(str(error), addresses)) from error


@contextmanager
def _connected(hosts: Hosts, rank: Rank, stop: Stop) -> Iterator[Cluster]:
    is_single_host = len(hosts.names) == 1
    interface = "lo" if is_single_host else hosts.network_interface
    # Version 3 of the SageMaker SDK names an interface that its containers do not have.
    if any(name == interface for _, name in socket.if_nameindex()):
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, interface)
    store = _store("127.0.0.1" if is_single_host else hosts.names[0], hosts, rank, stop)
    counts = _exchange_counts(store, hosts, rank, stop)
    cluster = Cluster(sum(counts[: hosts.rank]) + rank.index, sum(counts))
    if cluster.world_size == 1:
        yield cluster
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        # "cuda" then means this GPU.
        torch.cuda.set_device(rank.index)
    torch.distributed.init_process_group(
        # NCCL for tensors on GPUs, Gloo for those on CPUs. Every step first agrees on a stop by
        # Gloo, which detects a lost host at once.
        "cpu:gloo,cuda:nccl" if has_gpu else "gloo",
        store=store,
        rank=cluster.rank,
        world_size=cluster.world_size,
        timeout=TIMEOUT,
    )
    yield cluster
    # Not after an error: it would wait for processes that have ended.
    torch.distributed.destroy_process_group()


def _store(address: str, hosts: Hosts, rank: Rank, stop: Stop) -> TCPStore:
    """Connect to the store of the first process, in which all processes register."""
    is_first = hosts.rank == 0 and rank.index == 0
    deadline = time.monotonic() + RENDEZVOUS_TIMEOUT.total_seconds()
    while not is_first:
        stop.check()
        try:
            socket.create_connection((address, rank.port), timeout=1).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"host {address} of resourceconfig.json has not started within "
                    f"{RENDEZVOUS_TIMEOUT} ({error}): see its log"
                ) from error
            time.sleep(_POLL_SECONDS)
        else:
            break
    return TCPStore(
        address, rank.port, is_master=is_first, timeout=RENDEZVOUS_TIMEOUT, wait_for_workers=False
    )


def _exchange_counts(store: TCPStore, hosts: Hosts, rank: Rank, stop: Stop) -> list[int]:
    """Return the number of processes of each host."""
    keys = [f"processes of {name}" for name in hosts.names]
    if rank.index == 0:
        store.set(keys[hosts.rank], str(rank.count))
    deadline = time.monotonic() + RENDEZVOUS_TIMEOUT.total_seconds()
    while missing := [
        name for name, key in zip(hosts.names, keys, strict=True) if not store.check([key])
    ]:
        stop.check()
        if time.monotonic() > deadline:
            raise UserError(
                f"hosts of resourceconfig.json have not started within {RENDEZVOUS_TIMEOUT}: "
                f"{', '.join(missing)}; see their logs"
            )
        time.sleep(_POLL_SECONDS)
    return [int(store.get(key)) for key in keys]


def host_addresses(hosts: Hosts) -> dict[str, str]:
    """Return the other hosts' names by address: a host that has ended no longer resolves."""
    addresses: dict[str, str] = {}
    for name in hosts.names:
        with contextlib.suppress(OSError):
            addresses |= {str(info[4][0]): name for info in socket.getaddrinfo(name, None)}
    return {address: name for address, name in addresses.items() if name != hosts.current}


def describe_loss(error: str, addresses: Mapping[str, str]) -> str:
    """Describe Gloo's error `[pair.cc:561] Connection closed by peer [ADDRESS]:PORT`.

    The errors of NCCL name no host.
    """
    address = re.search(r"\[([^][/]+)\]:\d+", error)
    name = addresses.get(address[1]) if address else None
    reason = error.partition("] ")[2].partition(". ")[0] or error
    who = f"host {name}" if name else "another process of the job"
    return f"the connection to {who} was lost ({reason}): see its log"
