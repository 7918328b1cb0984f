"""The values of unset hyperparameters, and checks of given ones."""

import numpy as np
import pytest
import torch

from container.classifier.errors import UserError
from container.training.device import Arithmetic
from container.training.hyperparameters import Hyperparameters
from container.training.recipe import (
    Recipe,
    check_compiler,
    flips,
    image_size,
    min_images_per_rank,
    wants_download,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("network", "pretrained", "expected"),
    [
        ("small", None, False),
        ("resnet18", None, True),
        ("resnet18", False, False),
        ("small", True, True),
    ],
)
def test_torchvision_networks_are_pretrained_by_default(
    network: str, *, pretrained: bool | None, expected: bool
) -> None:
    assert wants_download(Hyperparameters(network=network, pretrained=pretrained)) is expected


@pytest.mark.parametrize(
    ("network", "size", "expected"),
    [("small", None, 128), ("resnet18", None, 224), ("small", 64, 64), ("resnet18", 96, 96)],
)
def test_the_default_image_size_depends_on_the_network(
    network: str, size: int | None, expected: int
) -> None:
    assert image_size(Hyperparameters(network=network, image_size=size)) == expected


@pytest.mark.parametrize(
    ("images", "batch_size", "hosts", "expected"),
    [(24, 8, 1, 8), (25, 8, 1, 6), (9, 8, 1, 4), (9, 8, 2, 2), (5, 64, 1, 5), (1000, 64, 4, 15)],
)
def test_fewest_images_per_rank_are_in_the_smallest_batch(
    images: int, batch_size: int, hosts: int, expected: int
) -> None:
    assert min_images_per_rank(images, batch_size, hosts) == expected


def test_batches_too_small_for_all_ranks_are_rejected() -> None:
    with pytest.raises(UserError, match="3 images in batches of 64 leave some of the 4 "):
        min_images_per_rank(3, 64, 4)


def test_the_number_format_is_the_given_precision() -> None:
    assert Arithmetic.choose("float32", "resnet18").dtype is torch.float32
    assert Arithmetic.choose("bfloat16", "mobilenet_v2").dtype is torch.bfloat16
    assert Arithmetic.choose("auto", "resnet18").dtype in {torch.float32, torch.bfloat16}
    assert str(Arithmetic(CPU, torch.bfloat16)) == "cpu/bfloat16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU gains by bfloat16 in any case")
def test_a_cpu_computes_depthwise_convolutions_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})

    assert Arithmetic.choose("auto", "resnet18").dtype is torch.bfloat16
    assert Arithmetic.choose("auto", "mobilenet_v3_large").dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_forward_pass_is_computed_in_the_number_format(dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(3, 3)

    with Arithmetic(CPU, dtype).autocast():
        assert layer(torch.ones(1, 3)).dtype is dtype


EVEN, UNEVEN = np.repeat([0, 1], 50), np.repeat([0, 1], [90, 10])


def test_a_missing_compiler_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")

    check_compiler(Hyperparameters())
    with pytest.raises(UserError, match=r"compile=true needs a C\+\+ compiler"):
        check_compiler(Hyperparameters(compile=True))


def test_a_frozen_backbone_has_no_epochs() -> None:
    hyperparameters = Hyperparameters(fine_tuning="none", epochs=7)

    assert Recipe.of(hyperparameters, EVEN, pretrained=True).total_steps == 0
    assert Recipe.of(hyperparameters, EVEN, pretrained=False).epochs == 7


@pytest.mark.parametrize(
    ("fine_tuning", "epochs", "pretrained", "expected"),
    [
        ("staged", 9, True, 3),
        ("staged", 1, True, 0),
        ("full", 9, True, 0),
        ("staged", 9, False, 0),
    ],
)
def test_only_pretrained_networks_have_a_first_stage(
    fine_tuning: str, epochs: int, *, pretrained: bool, expected: int
) -> None:
    hyperparameters = Hyperparameters(fine_tuning=fine_tuning, epochs=epochs)  # type: ignore[arg-type]

    recipe = Recipe.of(hyperparameters, EVEN, pretrained=pretrained)

    assert recipe.first_stage_epochs == expected


def test_uneven_classes_change_sampling_and_objective() -> None:
    even = Recipe.of(Hyperparameters(), EVEN, pretrained=False)
    uneven = Recipe.of(Hyperparameters(), UNEVEN, pretrained=False)
    given = Recipe.of(
        Hyperparameters(class_balance="none", objective="val_f1"), UNEVEN, pretrained=False
    )

    assert (even.balance, even.objective) == ("none", "val_accuracy")
    assert (uneven.balance, uneven.objective) == ("sampling", "val_balanced_accuracy")
    assert (given.balance, given.objective) == ("none", "val_f1")


def test_the_recipe_is_described_in_sentences() -> None:
    hyperparameters = Hyperparameters(epochs=6, batch_size=10, fine_tuning="staged")

    assert Recipe.of(hyperparameters, UNEVEN, pretrained=True).sentences(UNEVEN) == [
        "adamw takes 60 steps of one cycle, up to a learning rate of 0.0005",
        "in the first 2 of 6 epochs only the last third of the layers learns",
        "the kept weights are averaged over about 3 steps",
        "classes have 10 to 90 images: images of rare classes are drawn more often",
        "the best epoch is the one with the best val_balanced_accuracy",
    ]


def test_head_that_is_trained_alone_has_no_steps_or_epochs() -> None:
    (found,) = Recipe.of(Hyperparameters(fine_tuning="none"), EVEN, pretrained=True).sentences(EVEN)

    assert found.endswith("batch_size, epochs, optimizer and augmentation have no effect")


def test_steps_that_were_not_made_are_not_described() -> None:
    limited = Hyperparameters(max_minutes=1, fine_tuning="staged")

    assert Recipe.of(limited, EVEN, pretrained=True).planned(0).sentences(EVEN) == [
        "max_minutes left no time for steps: only the head was trained",
        "the best epoch is the one with the best val_accuracy",
    ]


def test_the_default_moving_average_spans_a_fraction_of_the_run() -> None:
    def decay(**settings: object) -> float:
        hyperparameters = Hyperparameters(batch_size=10, **settings)  # type: ignore[arg-type]
        return Recipe.of(hyperparameters, EVEN, pretrained=False).ema_decay

    assert decay(epochs=20) == pytest.approx(1 - 20 / 200)
    assert decay(epochs=1) == 0
    assert decay(epochs=20, ema_decay=0.5) == 0.5


def test_statistics_momentum_is_larger_in_short_runs() -> None:
    def momentum(epochs: int, step: int) -> float:
        hyperparameters = Hyperparameters(batch_size=10, epochs=epochs)
        return Recipe.of(hyperparameters, EVEN, pretrained=False).statistics_momentum(step)

    # 2, 10 and 100 epochs of 10 steps.
    assert momentum(2, step=1) == 0.4
    assert momentum(10, step=1) == momentum(10, step=99) == 20 / 100
    assert momentum(100, step=1) == 20 / 1000
    assert momentum(100, step=0) == 1


@pytest.mark.parametrize(
    ("horizontal", "vertical", "expected"),
    [(True, False, [(3,)]), (False, True, [(2,)]), (True, True, [(3,), (2,), (2, 3)])],
)
def test_test_time_augmentation_uses_the_allowed_flips(
    *, horizontal: bool, vertical: bool, expected: list[tuple[int, ...]]
) -> None:
    hyperparameters = Hyperparameters(
        test_time_augmentation=True, horizontal_flip=horizontal, vertical_flip=vertical
    )

    assert flips(hyperparameters) == expected


def test_test_time_augmentation_without_flips_is_rejected() -> None:
    assert flips(Hyperparameters(horizontal_flip=True)) == []
    with pytest.raises(UserError, match="no flip is allowed"):
        flips(Hyperparameters(test_time_augmentation=True))


@pytest.mark.parametrize(
    ("counts", "setting", "expected"),
    [
        ((30, 10), "auto", "sampling"),
        ((29, 10), "auto", "none"),
        ((10, 10), "auto", "none"),
        ((30, 10), "none", "none"),
        ((30, 10), "weights", "weights"),
        ((10, 10), "sampling", "sampling"),
    ],
)
def test_uneven_classes_are_balanced_by_default(
    counts: tuple[int, int], setting: str, expected: str
) -> None:
    hyperparameters = Hyperparameters(class_balance=setting)  # type: ignore[arg-type]

    recipe = Recipe.of(hyperparameters, np.repeat([0, 1], counts), pretrained=False)

    assert recipe.balance == expected


@pytest.mark.parametrize(("pretrained", "expected"), [(True, (32, 0.1)), (False, (64, 0.0))])
def test_fine_tuning_has_smaller_batches_and_smooth_labels(
    *, pretrained: bool, expected: tuple[int, float]
) -> None:
    recipe = Recipe.of(Hyperparameters(), UNEVEN, pretrained=pretrained)

    assert (recipe.batch_size, recipe.label_smoothing) == expected


def test_given_batches_and_labels_are_kept() -> None:
    given = Hyperparameters(batch_size=16, label_smoothing=0.0)

    recipe = Recipe.of(given, UNEVEN, pretrained=True)

    assert (recipe.batch_size, recipe.label_smoothing) == (16, 0.0)
