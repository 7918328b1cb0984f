"""The features of a frozen backbone, for every family of networks."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from container.classifier.errors import UserError
from container.networks.network import SMALL, Classifier, Network, build
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.evaluation import inference
from container.training.evaluation.inference import to_images
from container.training.head import features
from container.training.sagemaker.stop import Stop, Stopped, StopRequest
from tests.families import FAMILIES

FLOAT32 = Arithmetic(torch.device("cpu"), torch.float32)


def noise(count: int, image_size: int) -> ImageSet:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, image_size, image_size, 3), np.uint8)
    return ImageSet(pixels, np.arange(count) % 3, (Path("x"),) * count, "")


def build_small() -> Network:
    torch.manual_seed(0)
    return build(SMALL, 3)


class StopAtCheck(Stop):
    """A stop that is requested from its n-th check on."""

    def __init__(self, number: int) -> None:
        self.number, self.checks = number, 0

    @property
    def requested(self) -> bool:
        self.checks += 1
        return self.checks >= self.number


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_on_the_features_returns_the_networks_logits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(inference.BATCH_SIZES, "cpu", 2)
    torch.manual_seed(0)
    network = build(name, 5)
    head = network.module.get_submodule(network.heads[-1])
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    images = noise(3, FAMILIES[name])

    found = features.compute(network, images, FLOAT32, StopRequest())

    classifier = Classifier(network.module).eval()
    with torch.inference_mode():
        expected = classifier(to_images(images.pixels, torch.device("cpu")))
        logits = head(torch.from_numpy(np.array(found.values)))
    assert logits.std() > 1e-3
    assert torch.allclose(logits, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
    assert found.labels.tolist() == [0, 1, 2]


def test_computing_features_changes_no_statistics() -> None:
    network = build_small()
    before = {k: v.clone() for k, v in network.module.state_dict().items()}

    features.compute(network, noise(3, 16), FLOAT32, StopRequest())

    assert all(torch.equal(before[k], v) for k, v in network.module.state_dict().items())


def test_the_network_can_be_trained_afterwards() -> None:
    network = build_small()

    features.compute(network, noise(3, 16), FLOAT32, StopRequest())

    network.module(torch.rand(2, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.module.parameters())


def test_features_in_bfloat16_are_nearly_equal() -> None:
    network, images = build_small(), noise(3, 16)

    bfloat16 = Arithmetic.choose("bfloat16", "resnet18")
    found = features.compute(network, images, bfloat16, StopRequest()).values

    expected = features.compute(network, images, FLOAT32, StopRequest()).values
    assert found.dtype == expected.dtype == np.float32
    assert 0 < np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()


def test_features_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inference.BATCH_SIZES, "cpu", 2)
    network, images, before = build_small(), noise(9, 32), torch.get_num_threads()
    found = []

    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(features.compute(network, images, FLOAT32, StopRequest()).values)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)

    assert np.array_equal(found[0], found[1])
    assert len({tuple(row) for row in found[0].tolist()}) == 9


def test_the_number_of_features_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    features.compute(build_small(), noise(3, 16), FLOAT32, StopRequest())

    (line,) = caplog.messages
    assert line.startswith("frozen_features images=3 dimensions=256 seconds=")


def test_a_stop_ends_the_computation_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inference.BATCH_SIZES, "cpu", 2)
    network, stop = build_small(), StopAtCheck(2)

    with pytest.raises(Stopped):
        features.compute(network, noise(6, 16), FLOAT32, stop)
    assert stop.checks == 2
    assert isinstance(network.module.get_submodule("head"), nn.Linear)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("r+b") as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
        with pytest.raises(UserError, match=r"^no room for the features of 3 images in .*\(No"):
            features.compute(build_small(), noise(3, 16), FLOAT32, StopRequest())


def counted(count: int, image_size: int, name: str) -> ImageSet:
    images = noise(count, image_size)
    return ImageSet(images.pixels, images.labels, images.paths, name)


def test_cached_features_do_not_depend_on_the_head(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    images, network = counted(3, 16, "found later"), build_small()
    first = features.find_or_compute(network, images, FLOAT32, StopRequest())
    head = network.module.get_submodule("head")
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)

    again = features.find_or_compute(network, images, FLOAT32, StopRequest())

    assert np.array_equal(first.values, again.values)
    assert caplog.messages[-1] == "frozen_features=cached images=3 dimensions=256"


@pytest.mark.parametrize("change", ["images", "weights", "arithmetic"])
def test_features_of_other_inputs_are_computed(
    change: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    network = build_small()
    features.find_or_compute(network, counted(3, 16, change), FLOAT32, StopRequest())
    images = counted(3, 16, "others" if change == "images" else change)
    arithmetic_ = Arithmetic.choose("bfloat16", "resnet18") if change == "arithmetic" else FLOAT32
    if change == "weights":
        with torch.no_grad():
            next(iter(network.module.parameters())).mul_(1.01)

    features.find_or_compute(network, images, arithmetic_, StopRequest())

    assert not [message for message in caplog.messages if "cached" in message]
