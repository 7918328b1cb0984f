"""Batch normalization over several ranks equals that of one process with the whole batch."""

import functools
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from container.networks.network import small_network
from container.training.fitting.batch_norm import (
    RunningStatistics,
    SynchronizedBatchNorm,
    synchronized,
)
from container.training.fitting.cluster import Cluster

# Two processes have 4 and 3 of them.
IMAGES = torch.rand(3, 7, 3, 5, 5, generator=torch.Generator().manual_seed(1))


def make_network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Normalize maps and vectors, with weights and without, by a moving and a plain average."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.ReLU(),
        nn.Conv2d(4, 5, 2),
        nn.BatchNorm2d(5, momentum=None, eps=1e-3),
        nn.Flatten(),
        nn.BatchNorm1d(20, affine=False),
        nn.Linear(20, 2),
    )
    return network.to(dtype).to(memory_format=torch.channels_last)


def learn(network: nn.Module, cluster: Cluster, dtype: torch.dtype = torch.float64) -> Tensor:
    """Make a step for each batch; return the outputs for the last batch in evaluation mode."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with cluster.learning(network) as model:
        for batch in IMAGES.to(dtype):
            own = batch[cluster.rank :: cluster.world_size]
            loss = model.train()(own).square().sum() * cluster.world_size / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        outputs: Tensor = network.eval()(IMAGES[-1].to(dtype)).detach()
    return outputs


def small_networks_losses(cluster: Cluster) -> Tensor:
    """Return the loss of each of 50 steps (50,) of the small network in float64."""
    torch.manual_seed(0)
    network = small_network(3).double().to(memory_format=torch.channels_last)
    # Larger steps amplify rounding differences.
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0001, momentum=0.9)
    losses = []
    with cluster.learning(network) as model:
        for _ in range(50):
            images, labels = torch.randn(7, 3, 16, 16).double(), torch.randint(3, (7,))
            own = slice(cluster.rank, None, cluster.world_size)
            loss = cross_entropy(model.train()(images[own]), labels[own], reduction="sum")
            optimizer.zero_grad()
            (loss * cluster.world_size / 7).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(cluster.total(loss.detach()))
    return torch.stack(losses)


def _work(rank: int, world_size: int, directory: Path, work: Callable[[Cluster], object]) -> None:
    # The loopback interface, because all processes run on one machine.
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/store", rank=rank, world_size=world_size
    )
    torch.save(work(Cluster(rank, world_size)), directory / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def together(world_size: int, directory: Path, work: Callable[[Cluster], object]) -> list[Any]:
    """Return the results of `work` in several processes."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_work, args=(rank, world_size, directory, work))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * world_size
    return [torch.load(directory / f"{rank}.pt") for rank in range(world_size)]


def _learn(cluster: Cluster, dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor, list[str]]:
    network = make_network(dtype)
    outputs = learn(network, cluster, dtype)
    return network.state_dict(), outputs, [type(layer).__name__ for layer in network]


Learned = tuple[torch.dtype, list[tuple[dict[str, Tensor], Tensor, list[str]]]]


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=str)
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """State, outputs and layer types of each of two processes."""
    work = functools.partial(_learn, dtype=request.param)
    return request.param, together(2, tmp_path_factory.mktemp("learned"), work)


def test_two_ranks_learn_the_same_as_one_process(
    learned: Learned,
) -> None:
    dtype, states = learned
    network = make_network(dtype)
    outputs = learn(network, Cluster(0, 1), dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5

    for state, own_outputs, _ in states:
        assert state.keys() == network.state_dict().keys()
        for name, expected in network.state_dict().items():
            torch.testing.assert_close(state[name], expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(own_outputs, outputs, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_50_steps_of_three_ranks_have_the_losses_of_one_process(tmp_path: Path) -> None:
    expected = small_networks_losses(Cluster(0, 1))

    for losses in together(3, tmp_path, small_networks_losses):
        torch.testing.assert_close(losses, expected, rtol=0, atol=1e-9)


def test_the_network_is_plain_after_training(
    learned: Learned,
) -> None:
    kinds = [type(layer).__name__ for layer in make_network()]

    assert [left for _, _, left in learned[1]] == [kinds, kinds]


def test_layers_are_replaced_within_the_block_and_share_tensors() -> None:
    network = make_network()
    layer, state = network[1], network.state_dict()

    with synchronized(network):
        assert isinstance(network[1], SynchronizedBatchNorm)
        assert network.state_dict().keys() == state.keys()
        shared = network.state_dict()
        network.eval()

    assert network[1] is layer
    assert not layer.training
    assert all(shared[name].data_ptr() == state[name].data_ptr() for name in state)


def test_momentum_is_the_larger_of_the_layers_own_and_the_least() -> None:
    network = make_network()
    statistics = RunningStatistics(network)

    with synchronized(network):
        for least, expected in ((1.0, [1, None, 1]), (0.2, [0.3, None, 0.2])):
            statistics.set_momentum(least)
            layers = [
                layer for layer in network if isinstance(layer, nn.modules.batchnorm._BatchNorm)
            ]
            assert [layer.momentum for layer in layers] == expected


def test_a_layer_in_evaluation_mode_does_not_communicate() -> None:
    network = make_network()
    expected = network.eval()(IMAGES[0].double())

    with synchronized(network):
        outputs = network(IMAGES[0].double())

    assert torch.equal(outputs, expected)


def test_a_single_process_is_not_synchronized() -> None:
    network = make_network()

    with Cluster(0, 1).learning(network) as model:
        assert model is network
        assert type(network[1]) is nn.BatchNorm2d
