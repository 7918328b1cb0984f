"""The labeled images of a channel."""

from collections import Counter
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from container.classifier.labeled_images import (
    LabeledFile,
    check_classes,
    class_names_of,
    labeled_files,
    labeled_splits,
)
from container.classifier.lost_files import check_lost
from container.classifier.split_names import role_of
from container.training.data.sampling import split_validation


def touch(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()


def found(directory: Path) -> list[tuple[str, str]]:
    files = labeled_files(directory)
    return [(str(file.path.relative_to(directory)), file.class_name) for file in files]


def files(**counts: int) -> list[LabeledFile]:
    return [
        LabeledFile(Path(name, str(number)), name)
        for name, count in counts.items()
        for number in range(count)
    ]


def test_class_folders_label_images_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.PNG", "dog/old/a.jpeg", "cat/1.webp")

    assert found(tmp_path) == [
        ("cat/1.webp", "cat"),
        ("dog/b.PNG", "dog"),
        ("dog/old/a.jpeg", "dog"),
    ]


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        ("00048a93-4f0e_3L.png", "3L"),
        ("a_b_c_dog.JPG", "dog"),
        ("_cat.gif", "cat"),
        ("x_two words.bmp", "two words"),
    ],
)
def test_loose_images_have_their_label_after_the_last_underscore(
    tmp_path: Path, name: str, class_name: str
) -> None:
    touch(tmp_path, name)

    assert found(tmp_path) == [(name, class_name)]


@pytest.mark.parametrize("name", ["dog.png", "dog_.png", "a_b.c.png"])
def test_loose_image_without_a_label_is_rejected(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)

    with pytest.raises(UserError, match="has no label"):
        labeled_files(tmp_path)


def test_hidden_and_other_files_are_not_images(tmp_path: Path) -> None:
    touch(tmp_path, ".DS_Store", "Thumbs.db", "labels.csv", "cat/1.png", "cat/._1.png", "cat/1.xml")
    touch(tmp_path, "__MACOSX/cat/1.png", ".ipynb_checkpoints/1.png")

    assert found(tmp_path) == [("cat/1.png", "cat")]


def test_channel_without_images_is_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "cat/readme.txt")

    with pytest.raises(UserError, match=f"^no image under {tmp_path}: expected <class name>/"):
        labeled_files(tmp_path)


def test_class_folder_that_is_a_link_is_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "channel/cat/1.png", "elsewhere/1.png")
    (tmp_path / "channel/dog").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UserError, match="/dog is a link to a folder"):
        labeled_files(tmp_path / "channel")


def test_image_numbers_in_names_are_not_labels(tmp_path: Path) -> None:
    touch(tmp_path, "IMG_0001.jpg", "IMG_0002.jpg", "IMG_0003.jpg")

    with pytest.raises(UserError, match="labels were read from the file names, such as '0001'"):
        labeled_files(tmp_path)


def test_ignored_files_and_empty_folders_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg", "dog/2.txt")
    (tmp_path / "empty").mkdir()

    labeled_files(tmp_path)

    assert f"1 files are not used: {tmp_path}/dog/2.txt (not an image)" in caplog.text
    assert "folders without images are not classes: empty" in caplog.text


def test_mixed_layouts_are_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "2_dog.png")

    with pytest.raises(UserError, match=r"both class folders and loose images such as 2_dog"):
        labeled_files(tmp_path)


@pytest.mark.parametrize("name", ["caf\udce9", "a\nval_accuracy=1", "tab\t"])
def test_class_name_with_control_characters_is_rejected(name: str) -> None:
    with pytest.raises(UserError) as rejection:
        class_names_of(files(**{"a": 1, name: 1}))

    assert str(rejection.value).startswith(f"the class name {name!r} has control characters")


def test_class_names_are_sorted_and_must_be_two_or_more() -> None:
    assert class_names_of(files(b=1, a=2, c=1)) == ("a", "b", "c")
    with pytest.raises(UserError, match="at least two classes, the training channel has one: 'a'"):
        class_names_of(files(a=3))


@pytest.mark.parametrize(
    ("fraction", "held_out"),
    [
        (0.2, {"a": 20, "b": 2, "c": 1}),
        (0.01, {"a": 1, "b": 1, "c": 1}),
        (0.9, {"a": 90, "b": 9, "c": 1}),
    ],
)
def test_split_takes_the_same_fraction_of_every_class(
    fraction: float, held_out: dict[str, int]
) -> None:
    everything = files(a=100, b=10, c=2, d=1)

    training, validation = split_validation(everything, fraction, seed=0)

    assert Counter(file.class_name for file in validation) == held_out
    assert sorted(training + validation, key=everything.index) == everything
    assert not set(training) & set(validation)


def test_equal_seeds_split_equally() -> None:
    everything = files(a=50, b=50)

    assert split_validation(everything, 0.2, seed=1) == split_validation(everything, 0.2, seed=1)
    assert split_validation(everything, 0.2, seed=1) != split_validation(everything, 0.2, seed=2)


def test_images_held_out_of_many_classes_need_only_one_of_each(tmp_path: Path) -> None:
    touch(tmp_path, *(f"class {number}/1.png" for number in range(30)))

    assert len(labeled_splits(tmp_path, is_whole=False).single()) == 30
    with pytest.raises(UserError, match="every image has a different label"):
        labeled_splits(tmp_path)


def test_held_out_images_cannot_have_other_classes() -> None:
    check_classes(files(a=1), ("a", "b"), "test")
    with pytest.raises(UserError, match="the test channel has classes that training lacks: c"):
        check_classes(files(a=1, c=1), ("a", "b"), "test")
    for trained, held_out in (("Cat", "cat"), ("cat ", "cat"), ("1", "01"), ("red_ant", "red ant")):
        with pytest.raises(UserError, match=f"; spell '{held_out}' and '{trained}' equally"):
            check_classes(files(**{held_out: 1}), (trained,), "test")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train2017", "train"),
        ("Train Images", "train"),
        ("X_train", "train"),
        ("seg_train", "train"),
        ("trainset", "train"),
        ("TRAIN_SIMPLE", "train"),
        ("train_val2018", "train"),
        ("Trainingsbilder", "train"),
        ("训练集", "train"),
        ("dev", "validation"),
        ("validation-set", "validation"),
        ("hold-out", "test"),
        ("rps-test-set", "test"),
        ("images to predict", "unlabeled"),
        ("train_test_split", None),
        ("invalid", None),
        ("contest", None),
        ("testimony", None),
        ("devices", None),
        ("steam train journey", None),
    ],
)
def test_words_of_splits_are_recognized_in_names(name: str, role: str | None) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["car/1.jpg", "train/1.jpg"], {"car", "train"}),
        (["bus/1.jpg", "bus/old/2.jpg", "car/1.jpg", "train/1.jpg"], {"bus", "car", "train"}),
        (["beaker/1.jpg", "flask/1.jpg", "test_tube/1.jpg"], {"beaker", "flask", "test_tube"}),
        (["freight_train/1.jpg", "steam_train/1.jpg"], {"freight_train", "steam_train"}),
        (["invalid/1.jpg", "valid/1.jpg"], {"invalid", "valid"}),
        (["train/car/1.jpg", "train/train/1.jpg", "val/car/1.jpg"], {"car", "train"}),
    ],
)
def test_class_with_the_name_of_a_split_is_recognized(
    tmp_path: Path, names: list[str], labels: set[str]
) -> None:
    touch(tmp_path, *names)

    splits = labeled_splits(tmp_path).files

    assert {file.class_name for files in splits.values() for file in files} == labels


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train/1.jpg", "extra/1.jpg"], "looks like a split, but extra is next to it"),
        (["train/1.jpg", "test/1.jpg", "car/1.jpg"], "look like splits, but car is next to them"),
        (["train/a/1.jpg", "train - Copy/a/1.jpg"], "are all for training: keep one"),
        (["ds/train/a/1.jpg", "ds/test/a/1.jpg", "more/a/1.jpg"], "ds contains splits, and more"),
        (["train_a/1.jpg", "test_b/1.jpg"], "can be splits or classes"),
        (
            ["cats/1.jpg", "test/2.jpg"],
            "test looks like a split, but cats .*splits=none if they are",
        ),
        (
            [f"fold{fold}/{kind}/1.jpg" for fold in (1, 2) for kind in ("cat", "dog")],
            "fold1, fold2 contain the same folders, cat, dog",
        ),
    ],
)
def test_layout_that_is_not_certain_is_rejected(
    tmp_path: Path, names: list[str], words: str
) -> None:
    touch(tmp_path, *names)

    with pytest.raises(UserError, match=words):
        labeled_splits(tmp_path)


def test_splits_none_makes_classes_of_folders_that_look_like_splits(tmp_path: Path) -> None:
    touch(tmp_path, "cats/1.jpg", "test/2.jpg")

    files = labeled_splits(tmp_path, has_splits=False).single()

    assert [file.class_name for file in files] == ["cats", "test"]


def test_classes_with_unusual_names_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "ant/1.jpg", "bee/1.jpg", "Misc/1.jpg", "others/1.jpg")

    labeled_splits(tmp_path)

    assert "classes with unusual names: Misc, others;" in caplog.text


def test_lost_files_of_all_kinds_count_together(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{n}.jpg" for name in ("ant", "bee") for n in range(50)))
    for number in range(5):
        (tmp_path / "ant" / f"{number}.bin").write_bytes(b"\0\1\2")

    assert labeled_splits(tmp_path).lost == 5
    check_lost(5, 105)
    with pytest.raises(UserError, match="6 of 105 files are no images that can be read, more than"):
        check_lost(6, 105)
