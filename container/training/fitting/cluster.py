"""The processes of a job, on one host or several, working as one by torch.distributed."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from container.classifier.errors import UserError
from container.training.fitting.batch_norm import synchronized
from container.training.sagemaker.environment import Hosts
from container.training.sagemaker.stop import Stop, Stopped
from container.training.sagemaker.supervisor import ConnectionLostError, Place

# Hosts come up one after the other, and their names resolve later still.
MEETING_TIMEOUT = timedelta(minutes=10)

# A closed connection is noticed at once; this is for one that is cut, and for the slowest decoder.
TIMEOUT = timedelta(minutes=30)

_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Cluster:
    """This process's place among those of the job."""

    rank: int
    world_size: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes the model, the logs and the checkpoints."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def check_equal(self, value: str, message: str) -> None:
        """Make sure that all processes have the same `value`; else all raise.

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

    def from_first(self, state: object) -> object:
        """Return the first process's `state` in every process."""
        if self.world_size == 1:
            return state
        states = [state]
        torch.distributed.broadcast_object_list(states)
        return states[0]

    @contextmanager
    def learning(self, module: nn.Module) -> Iterator[nn.Module]:
        """Yield what to call in training: `module`, whose gradients are then the processes' mean.

        Its batch normalization takes the statistics of all processes' images meanwhile. What
        learns, by `requires_grad`, must not change before the block is left.
        """
        if self.world_size == 1:
            yield module
            return
        with synchronized(module):
            # Buffers are the same everywhere: statistics of the same images.
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
    """Join the processes of the job; one that is alone needs nothing.

    Raises:
        UserError: a host does not come up.
        ConnectionLostError: a process is gone before its work was done.
        Stopped: a stop was requested, and others have left already or did not come yet.
    """
    place = Place.given()
    if place is None:
        yield Cluster(rank=0, world_size=1)
        return
    addresses: dict[str, str] = {}
    try:
        with _connected(hosts, place, stop) as cluster:
            addresses = _addresses(hosts)
            yield cluster
            # None leaves while another still works: Local Mode ends all with the first.
            cluster.total(torch.zeros(1))
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, torch.distributed.DistError):
            raise
        if stop.requested:
            message = "stopped after other processes of the job"
            raise Stopped(message) from error
        raise ConnectionLostError(_who_is_lost(str(error), addresses)) from error


@contextmanager
def _connected(hosts: Hosts, place: Place, stop: Stop) -> Iterator[Cluster]:
    is_alone = len(hosts.names) == 1
    interface = "lo" if is_alone else hosts.network_interface
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, interface)
    store = _store("127.0.0.1" if is_alone else hosts.names[0], hosts, place, stop)
    counts = _exchange_counts(store, hosts, place, stop)
    cluster = Cluster(sum(counts[: hosts.rank]) + place.rank, sum(counts))
    if cluster.world_size == 1:
        yield cluster
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        # From here on "cuda" means this one.
        torch.cuda.set_device(place.rank)
    torch.distributed.init_process_group(
        # Both: tensors of the GPU travel by NCCL, those of the CPU by Gloo, which notices a lost
        # host at once, as every step asks by it for a stop before it computes.
        "cpu:gloo,cuda:nccl" if has_gpu else "gloo",
        store=store,
        rank=cluster.rank,
        world_size=cluster.world_size,
        timeout=TIMEOUT,
    )
    yield cluster
    # After an error it would wait for processes that are gone; the end of this one does as well.
    torch.distributed.destroy_process_group()


def _store(address: str, hosts: Hosts, place: Place, stop: Stop) -> TCPStore:
    """Open the first process's table, in which all look one another up."""
    is_first = hosts.rank == 0 and place.rank == 0
    deadline = time.monotonic() + MEETING_TIMEOUT.total_seconds()
    while not is_first:
        stop.check()
        try:
            socket.create_connection((address, place.port), timeout=1).close()
        except OSError as error:
            if time.monotonic() > deadline:
                message = (
                    f"host {address} of resourceconfig.json has not come up within "
                    f"{MEETING_TIMEOUT} ({error}): its own log says why"
                )
                raise UserError(message) from error
            time.sleep(_LOOK_SECONDS)
        else:
            break
    return TCPStore(
        address, place.port, is_master=is_first, timeout=MEETING_TIMEOUT, wait_for_workers=False
    )


def _exchange_counts(store: TCPStore, hosts: Hosts, place: Place, stop: Stop) -> list[int]:
    """Return how many processes each host has."""
    keys = [f"processes of {name}" for name in hosts.names]
    if place.rank == 0:
        store.set(keys[hosts.rank], str(place.count))
    deadline = time.monotonic() + MEETING_TIMEOUT.total_seconds()
    while missing := [
        name for name, key in zip(hosts.names, keys, strict=True) if not store.check([key])
    ]:
        stop.check()
        if time.monotonic() > deadline:
            message = (
                f"of the hosts of resourceconfig.json {', '.join(missing)} did not come up within "
                f"{MEETING_TIMEOUT}: its own log says why"
            )
            raise UserError(message)
        time.sleep(_LOOK_SECONDS)
    return [int(store.get(key)) for key in keys]


def _addresses(hosts: Hosts) -> dict[str, str]:
    """Return the other hosts' names by their addresses, which are unknown once they are gone."""
    addresses: dict[str, str] = {}
    for name in hosts.names:
        with contextlib.suppress(OSError):
            addresses |= {str(info[4][0]): name for info in socket.getaddrinfo(name, None)}
    return {address: name for address, name in addresses.items() if name != hosts.current}


def _who_is_lost(error: str, addresses: Mapping[str, str]) -> str:
    """Make a sentence of what Gloo says: `[pair.cc:561] Connection closed by peer [ADDRESS]:PORT`.

    NCCL says no more than that it waited in vain.
    """
    address = re.search(r"\[([^][/]+)\]:\d+", error)
    name = addresses.get(address[1]) if address else None
    reason = error.partition("] ")[2].partition(". ")[0] or error
    who = f"host {name}" if name else "another process of the job"
    return f"the connection to {who} was lost ({reason}): its own log says why"
