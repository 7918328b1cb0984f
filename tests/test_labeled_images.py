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
)
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


def test_held_out_images_cannot_have_other_classes() -> None:
    check_classes(files(a=1), ("a", "b"), "test")
    with pytest.raises(UserError, match="the test channel has classes that training lacks: c"):
        check_classes(files(a=1, c=1), ("a", "b"), "test")
