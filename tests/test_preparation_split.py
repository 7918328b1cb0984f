"""Splits by content: equal shares of every class, groups in one split."""

import hashlib
from collections import Counter

import pytest

from container.classifier.errors import UserError
from image_classifier.preparation.split import assign, check_shares

SHARES = {"validation": 0.1, "test": 0.2}


def hashes(count: int, prefix: str = "") -> list[str]:
    return [hashlib.sha256(f"{prefix}{number}".encode()).hexdigest() for number in range(count)]


def test_every_class_has_the_same_shares() -> None:
    names = ["ant"] * 100 + ["bee"] * 30 + ["cow"] * 10

    splits = assign(hashes(140), names, range(140), SHARES)

    assert Counter(zip(names, splits, strict=True)) == {
        ("ant", "train"): 70, ("ant", "validation"): 10, ("ant", "test"): 20,
        ("bee", "train"): 21, ("bee", "validation"): 3, ("bee", "test"): 6,
        ("cow", "train"): 7, ("cow", "validation"): 1, ("cow", "test"): 2,
    }  # fmt: skip


def test_splits_depend_on_neither_names_nor_order() -> None:
    contents, names = hashes(60), ["ant", "bee", "cow"] * 20
    straight = dict(zip(contents, assign(contents, names, range(60), SHARES), strict=True))

    backwards = assign(contents[::-1], names[::-1], [f"g{n}" for n in range(60)], SHARES)

    assert dict(zip(contents[::-1], backwards, strict=True)) == straight
    assert assign(hashes(60, "x"), names, range(60), SHARES) != list(straight.values())


def test_groups_stay_together_and_shares_are_approximated() -> None:
    groups = [number // 5 for number in range(600)]
    names = ["ant" if number % 3 else "bee" for number in range(600)]

    splits = assign(hashes(600), names, groups, SHARES)

    assert all(len({*splits[start : start + 5]}) == 1 for start in range(0, 600, 5))
    for name, total in Counter(names).items():
        of_class = Counter(s for s, n in zip(splits, names, strict=True) if n == name)
        assert abs(of_class["validation"] / total - 0.1) < 0.02
        assert abs(of_class["test"] / total - 0.2) < 0.02


def test_few_new_images_move_few_old_ones() -> None:
    old, new = hashes(1000), hashes(20, "new")
    names = ["ant", "bee"] * 510
    before = assign(old, names[:1000], range(1000), SHARES)

    after = assign([*old, *new], names, range(1020), SHARES)

    moved = sum(split != new_split for split, new_split in zip(before, after[:1000], strict=True))
    assert moved < 50


@pytest.mark.parametrize(
    "shares", [{"validation": 0.5, "test": 0.5}, {"validation": -0.1, "test": 0.2}]
)
def test_shares_that_leave_nothing_for_training_are_rejected(shares: dict[str, float]) -> None:
    with pytest.raises(UserError, match="leave nothing for training"):
        check_shares(shares)
