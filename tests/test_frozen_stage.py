"""The frozen stage: training and choice of the head."""

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from container.classifier.errors import UserError
from container.networks.network import Classifier, Network, build
from container.training.evaluation.evaluation import Evaluation, evaluate
from container.training.head import features, frozen_stage, head_bank
from container.training.head.features import Features
from container.training.head.head_bank import Bank, HeadTrainer, Rates, Standardization
from container.training.hyperparameters import Hyperparameters
from container.training.recipe import HEAD_LEARNING_RATES, HEAD_WEIGHT_DECAYS
from container.training.sagemaker.stop import Stopped, StopRequest
from tests.test_features import FLOAT32, StopAtCheck, build_small, noise

CPU = torch.device("cpu")


def clouds(count: int, *, spread: float, seed: int = 0) -> Features:
    """Make features of three classes around one point each, with very different scales."""
    labels = np.arange(count) % 3
    random = np.random.default_rng(seed)
    points = np.random.default_rng(7).normal(size=(3, 256))
    values = points[labels] + spread * random.normal(size=(count, 256)) + 5
    # The last features are 0 for all images.
    scales = np.where(np.arange(256) < 240, 4.0 ** (np.arange(256) % 8 - 4), 0)
    return Features((values * scales).astype(np.float32), labels)


EASY = clouds(120, spread=0.5), clouds(60, spread=0.5, seed=1)
HARD = clouds(120, spread=6.0), clouds(60, spread=6.0, seed=1)


def train(
    network: Network,
    data: tuple[Features, Features],
    *,
    objective: str = "val_accuracy",
    class_weights: npt.NDArray[np.float32] | None = None,
    **hyperparameters: object,
) -> tuple[Rates, Evaluation]:
    return frozen_stage.train(
        network,
        *data,
        Hyperparameters.from_strings({"head_epochs": 5, **hyperparameters}),
        objective=objective,
        class_weights=class_weights,
        device=CPU,
        stop=StopRequest(),
    )


def weights_of(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.module.state_dict().items()}


def table(messages: list[str]) -> list[dict[str, float]]:
    """Return the values in the log line of each head."""
    lines = [line.split() for line in messages if line.startswith("frozen_stage learning_rate=")]
    pairs = [[pair.split("=") for pair in line[1:]] for line in lines]
    return [{name: float(value) for name, value in line} for line in pairs]


@pytest.mark.parametrize("name", ["small", "squeezenet1_0"])
def test_the_evaluation_is_that_of_the_whole_network(name: str) -> None:
    torch.manual_seed(0)
    network, training, validation = build(name, 3), noise(60, 32), noise(31, 32)
    data = [features.compute(network, p, FLOAT32, StopRequest()) for p in (training, validation)]

    _, on_features = train(network, (data[0], data[1]))

    evaluation = evaluate(Classifier(network.module), validation, FLOAT32, 3, StopRequest())
    assert evaluation is not None
    assert on_features.loss == pytest.approx(evaluation.loss, rel=1e-3)
    assert on_features.loss != pytest.approx(np.log(3), rel=1e-2)
    assert on_features.confusion.tolist() == evaluation.confusion.tolist()


def test_the_head_standardizes_by_the_training_features() -> None:
    network = build("squeezenet1_0", 3)
    values = np.random.default_rng(0).gamma(2, 3, (2500, 512)).astype(np.float32)

    train(network, (Features(values, np.arange(2500) % 3), Features(values[:9], np.arange(9) % 3)))

    norm = network.module.get_submodule(network.heads[0] + ".0")
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.eps == head_bank.EPSILON
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean.numpy() == pytest.approx(values.mean(axis=0), rel=1e-4)
    assert norm.running_var.numpy() == pytest.approx(values.var(axis=0), rel=1e-3)


def test_separable_classes_are_separated() -> None:
    assert train(build_small(), EASY)[1].accuracy == 1


def test_only_the_head_changes() -> None:
    network = build_small()
    before = weights_of(network)

    train(network, EASY)

    changed = {k for k, v in weights_of(network).items() if not torch.equal(v, before[k])}
    assert changed == {"head.weight", "head.bias"}


def test_the_result_depends_on_the_seed_alone() -> None:
    networks = []
    for torch_seed, seed in ((1, 3), (2, 3), (1, 4)):
        network = build_small()
        torch.manual_seed(torch_seed)
        train(network, HARD, seed=seed, fine_tuning="none", learning_rate=0.01, weight_decay=1)
        networks.append(weights_of(network)["head.weight"])

    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_the_chosen_head_is_the_best_one_in_the_log(
    objective: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    rates, evaluation = train(build_small(), HARD, objective=objective)

    rows = table(caplog.messages)
    assert len(rows) == len(HEAD_LEARNING_RATES) * len(HEAD_WEIGHT_DECAYS)
    if objective == "val_loss":
        best = min(rows, key=lambda row: row["loss"])
    else:
        best = max(rows, key=lambda row: (row["accuracy"], -row["loss"]))
    assert evaluation.loss == pytest.approx(best["loss"], rel=1e-3)
    assert evaluation.accuracy == pytest.approx(best["accuracy"], rel=1e-3)
    assert rates == Rates(best["learning_rate"], best["weight_decay"])
    assert caplog.messages[-1].startswith(f"frozen_stage chosen {rates} steps=20 seconds=")


@pytest.mark.parametrize("fine_tuning", ["none", "staged"])
@pytest.mark.parametrize("learning_rate", [None, 0.02])
@pytest.mark.parametrize("weight_decay", [None, 0, 0.5])
def test_given_rates_are_used_if_no_stage_follows(
    learning_rate: float | None,
    weight_decay: float | None,
    fine_tuning: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    given: dict[str, Any] = {"learning_rate": learning_rate, "weight_decay": weight_decay}

    train(build_small(), EASY, fine_tuning=fine_tuning, **given)

    is_last = fine_tuning == "none"
    learning_rates = (
        (learning_rate,) if is_last and learning_rate is not None else HEAD_LEARNING_RATES
    )
    weight_decays = (weight_decay,) if is_last and weight_decay is not None else HEAD_WEIGHT_DECAYS
    tried = {(row["learning_rate"], row["weight_decay"]) for row in table(caplog.messages)}
    assert tried == {(rate, decay) for rate in learning_rates for decay in weight_decays}


def test_a_head_is_independent_of_the_others_in_its_bank(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    train(build_small(), HARD)
    rows = table(caplog.messages)
    assert len({row["loss"] for row in rows}) > len(HEAD_LEARNING_RATES)

    for row in (rows[0], rows[5], rows[-1]):
        rates = Rates(row["learning_rate"], row["weight_decay"])
        hyperparameters = Hyperparameters(head_epochs=5)
        bank = Bank([rates], 256, 3)
        standardize = Standardization.of(HARD[0], CPU)
        trainer = HeadTrainer(bank, HARD[0], standardize, hyperparameters, class_weights=None)
        for epoch in range(5):
            trainer.train_one_epoch(epoch)
        (alone,) = bank.evaluate(HARD[1], standardize)
        assert alone.loss == pytest.approx(row["loss"], rel=1e-3)


def test_a_class_with_more_weight_is_predicted_more_often() -> None:
    shares = []
    for weight in (0.2, 1, 5):
        weights = np.array([1, 1, weight], np.float32)
        shares.append(train(build_small(), HARD, class_weights=weights)[1].confusion[:, 2])

    counts = [int(share.sum()) for share in shares]
    assert counts[0] < counts[1] < counts[2]


def test_label_smoothing_lowers_confidence() -> None:
    sure, unsure = (train(build_small(), EASY, label_smoothing=share)[1].loss for share in (0, 0.5))

    # The smoothed labels are (0.67, 0.17, 0.17).
    assert sure < 0.1 < unsure < -np.log(0.5)


def test_a_stop_ends_training_between_epochs() -> None:
    network, stop = build_small(), StopAtCheck(2)
    before = weights_of(network)

    with pytest.raises(Stopped):
        frozen_stage.train(
            network,
            *EASY,
            Hyperparameters(),
            objective="val_loss",
            class_weights=None,
            device=CPU,
            stop=stop,
        )
    assert stop.checks == 2
    assert all(torch.equal(before[k], v) for k, v in network.module.state_dict().items())


def test_features_of_nan_are_rejected() -> None:
    broken = Features(np.full((12, 256), np.nan, np.float32), np.arange(12) % 3)

    with pytest.raises(UserError, match=r"^the validation loss of the frozen stage is not finite"):
        train(build_small(), (broken, broken))


def trainer_of(images: int, inputs: int) -> HeadTrainer:
    data = Features(np.zeros((images, inputs), np.float32), np.zeros(images, np.int64))
    bank, standardize = Bank([Rates(0.01, 1)], inputs, 3), Standardization.of(data, CPU)
    return HeadTrainer(bank, data, standardize, Hyperparameters(), class_weights=None)


@pytest.mark.parametrize(("images", "epochs"), [(60, 50), (120, 25), (6000, 1)])
def test_more_images_mean_fewer_epochs(
    images: int, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_bank, "MAX_WORK", 25 * 120 * 256 * 3)

    assert trainer_of(images, 256).epochs == epochs


@pytest.mark.parametrize(("images", "steps"), [(1, 1), (40, 2), (800, 8), (100_000, 98)])
def test_batch_size_depends_on_the_number_of_images(images: int, steps: int) -> None:
    assert trainer_of(images, 2).steps_per_epoch == steps
