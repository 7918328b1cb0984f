"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from container.networks.network import Classifier
from container.training.fitting.learner import WeightAverage


def make_classifier() -> Classifier:
    return Classifier(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_weights_and_statistics_are_averaged_exponentially() -> None:
    classifier = make_classifier()
    average = WeightAverage(classifier, 0.5)
    expected = {k: v.clone().double() for k, v in classifier.state_dict().items()}

    for step in range(20, 25):
        with torch.no_grad():
            for value in classifier.state_dict().values():
                value.add_(step)
        average.update(classifier, step)
        for name, value in classifier.state_dict().items():
            expected[name] = 0.5 * expected[name] + 0.5 * value

    for name, value in average.classifier.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-6, atol=0)
        else:
            assert value == classifier.state_dict()[name]


def test_the_decay_is_smaller_in_the_first_steps() -> None:
    classifier = make_classifier()
    average = WeightAverage(classifier, 0.999)
    weight = average.classifier.state_dict()["network.0.weight"]
    weight.fill_(1)
    classifier.state_dict()["network.0.weight"].fill_(0)

    average.update(classifier, 0)

    assert weight[0, 0].item() == pytest.approx(0.1)


def test_a_decay_of_zero_returns_the_classifier() -> None:
    classifier = make_classifier()

    assert WeightAverage(classifier, 0).classifier is classifier
