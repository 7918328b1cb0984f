"""Batch normalisation over several processes: what one process with the whole batch computes."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import Tensor, nn

from training.batch_norm import SynchronizedBatchNorm, synchronized
from training.cluster import Cluster

# Over two processes they are 4 and 3.
PICTURES = torch.rand(3, 7, 3, 5, 5, generator=torch.Generator().manual_seed(1))


def make_network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Normalise maps and vectors, with weights and without, by a moving and a plain average."""
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
    """Make a step for each batch; return the outputs in evaluation, of the whole last batch."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with cluster.learning(network) as model:
        for batch in PICTURES.to(dtype):
            own = batch[cluster.rank :: cluster.world_size]
            loss = model.train()(own).square().sum() * cluster.world_size / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        outputs: Tensor = network.eval()(PICTURES[-1].to(dtype)).detach()
    return outputs


def _learn_together(rank: int, directory: Path, dtype: torch.dtype) -> None:
    # The tests run on one machine.
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/store", rank=rank, world_size=2
    )
    network = make_network(dtype)
    outputs = learn(network, Cluster(rank, 2), dtype)
    kinds = [type(layer).__name__ for layer in network]
    torch.save((network.state_dict(), outputs, kinds), directory / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=str)
def learned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[torch.dtype, list[tuple[dict[str, Tensor], Tensor, list[str]]]]:
    """What each of two processes has: its state, its outputs, and the kinds of its layers."""
    directory = tmp_path_factory.mktemp("learned")
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_learn_together, args=(rank, directory, request.param))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return request.param, [torch.load(directory / f"{rank}.pt") for rank in range(2)]


def test_two_processes_learn_what_one_learns_of_the_whole_batches(
    learned: tuple[torch.dtype, list[tuple[dict[str, Tensor], Tensor, list[str]]]],
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


def test_what_is_left_is_a_plain_network(
    learned: tuple[torch.dtype, list[tuple[dict[str, Tensor], Tensor, list[str]]]],
) -> None:
    kinds = [type(layer).__name__ for layer in make_network()]

    assert [left for _, _, left in learned[1]] == [kinds, kinds]


def test_layers_are_replaced_for_a_while_and_share_their_tensors() -> None:
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


def test_a_layer_in_evaluation_asks_no_other_process() -> None:
    network = make_network()
    expected = network.eval()(PICTURES[0].double())

    with synchronized(network):
        outputs = network(PICTURES[0].double())

    assert torch.equal(outputs, expected)


def test_one_process_needs_no_synchronisation() -> None:
    network = make_network()

    with Cluster(0, 1).learning(network) as model:
        assert model is network
        assert type(network[1]) is nn.BatchNorm2d
