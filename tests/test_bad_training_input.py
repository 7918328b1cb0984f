"""Errors in a job's input: one clear sentence, and the previous model is kept."""

import os
import shutil
from pathlib import Path

import pytest

from tests.opt_ml import (
    HYPERPARAMETERS,
    configure,
    failure,
    make_job,
    square,
    train_here,
    write_images,
    write_json,
)


def data(base_dir: Path) -> Path:
    return base_dir / "input" / "data"


def rejection(base_dir: Path) -> str:
    """Run a job that must fail with an error of the user; return the failure reason."""
    assert train_here(base_dir, "train") == 1
    assert "Traceback" not in failure(base_dir)
    assert not list((base_dir / "model").glob("*"))
    return failure(base_dir)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return make_job(tmp_path)


def test_empty_channel_is_rejected_with_the_expected_layouts(job: Path) -> None:
    shutil.rmtree(data(job) / "training")
    (data(job) / "training").mkdir()

    assert rejection(job).startswith(f"no image under {data(job) / 'training'}: expected <class")


def test_channel_without_a_folder_is_rejected(job: Path) -> None:
    configure(job, HYPERPARAMETERS, "training", "validation")

    assert rejection(job) == f"channel 'validation' has no folder {data(job) / 'validation'}"


def test_channel_with_one_class_is_rejected(job: Path) -> None:
    shutil.rmtree(data(job) / "training" / "blue")
    shutil.rmtree(data(job) / "training" / "red")

    assert rejection(job) == (
        "a classifier needs at least two classes, the training channel has one: 'green'"
    )


def test_one_image_per_class_is_too_few_to_split(job: Path) -> None:
    shutil.rmtree(data(job) / "training")
    write_images(data(job) / "training", per_class=1)

    assert rejection(job).startswith("every class has a single image")


@pytest.mark.parametrize("channel", ["validation", "test"])
def test_held_out_channel_with_the_training_images_is_rejected(job: Path, channel: str) -> None:
    for other in {"validation"} - {channel}:
        write_images(data(job) / other, first=100)
    shutil.copytree(data(job) / "training", data(job) / channel)
    configure(job, HYPERPARAMETERS, "training", "validation", channel)

    assert rejection(job).startswith(
        f"the {channel} channel holds the images of the training channel"
    )


def test_broken_images_are_named_counted_and_left_out(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(data(job) / "training", per_class=30)
    write_images(data(job) / "validation", first=100)
    configure(job, HYPERPARAMETERS, "training", "validation")
    blue = data(job) / "training" / "blue"
    (blue / "a-empty.png").write_bytes(b"")
    (blue / "b-text.png").write_bytes(b"no image")
    (blue / "c-torn.png").write_bytes(square("blue", 0)[:300])
    (blue / "d-ppm.png").write_bytes(square("blue", 0, suffix="PPM"))

    assert train_here(job, "train") == 0
    log = capsys.readouterr().out
    assert f"4 of 94 images cannot be read and are left out: {blue}/a-empty.png (" in log
    assert all(name in log for name in ("b-text.png (", "c-torn.png (", "d-ppm.png ("))
    assert "training_images=90" in log


def test_file_that_cannot_be_opened_is_a_broken_image(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(data(job) / "validation", first=100)
    configure(job, HYPERPARAMETERS, "training", "validation")
    (data(job) / "training" / "blue" / "link.png").symlink_to("nowhere.png")

    assert train_here(job, "train") == 0
    assert "link.png (No such file or directory)" in capsys.readouterr().out


def test_more_than_5_percent_of_broken_images_are_rejected(job: Path) -> None:
    write_images(data(job) / "validation", first=100)
    configure(job, HYPERPARAMETERS, "training", "validation")
    for number in range(2):
        (data(job) / "training" / "red" / f"broken-{number}.png").write_bytes(b"no image")

    assert rejection(job).startswith("2 of 32 images cannot be read, more than 5%: /")


def test_images_of_other_modes_are_accepted(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {"L": "PNG", "LA": "PNG", "P": "GIF", "RGBA": "WEBP", "CMYK": "JPEG", "1": "BMP"}
    for mode, suffix in kinds.items():
        path = data(job) / "training" / "blue" / f"{mode}.{suffix}"
        path.write_bytes(square("blue", 0, suffix=suffix, mode=mode))

    assert train_here(job, "train") == 0
    log = capsys.readouterr().out
    assert "training_images=29 validation_images=7" in log
    assert "cannot be read" not in log


def test_unknown_network_is_rejected_with_the_known_ones(tmp_path: Path) -> None:
    make_job(tmp_path, network="resnet9000")

    assert rejection(tmp_path).startswith("unknown network 'resnet9000'; known are small, alexnet")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("epochs", "0", "epochs must be 1 to 10000, got 0"),
        ("epochs", "three", "epochs must be a whole number, got 'three'"),
        ("learning_rate", "nan", "learning_rate must be 1e-09 to 100.0, got nan"),
        ("image_size", "8", "image_size must be 16 to 1024, got 8"),
        ("optimizer", "lion", "optimizer must be one of adamw, sgd, adam, muon; got 'lion'"),
        ("epoch", "3", "unknown hyperparameters epoch; known are network, pretrained, "),
    ],
)
def test_invalid_hyperparameter_is_rejected(
    tmp_path: Path, name: str, value: str, reason: str
) -> None:
    make_job(tmp_path, **{name: value})

    assert rejection(tmp_path).startswith(reason)


def test_unsupported_image_size_is_rejected_before_decoding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_job(tmp_path, network="vgg11", pretrained="false", image_size="16")

    assert rejection(tmp_path).startswith("vgg11 cannot learn from batches of")
    assert "training_images" not in capsys.readouterr().out


def test_too_small_parts_of_batches_are_rejected(tmp_path: Path) -> None:
    make_job(
        tmp_path, network="small", image_size="16", batch_size="8", gradient_accumulation_steps="8"
    )

    assert rejection(tmp_path).startswith("small cannot learn from batches of 1")


def test_half_size_steps_with_a_fixed_size_network_are_rejected(tmp_path: Path) -> None:
    make_job(
        tmp_path, network="vit_b_16", pretrained="false", image_size="32", half_size_steps="0.5"
    )

    assert rejection(tmp_path).startswith(
        "half_size_steps does not suit this network: vit_b_16 cannot learn from batches of"
    )


def test_pipe_mode_is_rejected_with_the_supported_modes(job: Path) -> None:
    write_json(job, "inputdataconfig.json", {"training": {"TrainingInputMode": "Pipe"}})

    assert rejection(job).startswith("channel 'training' uses Pipe mode, which has no image files")


@pytest.mark.parametrize("name", ["hyperparameters.json", "inputdataconfig.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '"text"'])
def test_configuration_that_is_not_a_json_object_is_rejected(
    job: Path, name: str, content: str
) -> None:
    (job / "input" / "config" / name).write_text(content)

    assert name in rejection(job)


def test_class_folders_mixed_with_loose_images_are_rejected(job: Path) -> None:
    (data(job) / "training" / "loose_red.png").write_bytes(square("red", 0))

    assert "both class folders and loose images such as loose_red.png" in rejection(job)


def test_loose_images_without_a_label_are_rejected(job: Path) -> None:
    shutil.rmtree(data(job) / "training")
    (data(job) / "training").mkdir()
    (data(job) / "training" / "nolabel.png").write_bytes(square("red", 0))

    assert rejection(job).startswith("nolabel.png has no label")


def test_validation_classes_that_training_lacks_are_rejected(job: Path) -> None:
    write_images(data(job) / "validation", per_class=2)
    (data(job) / "validation" / "red").rename(data(job) / "validation" / "purple")
    configure(job, HYPERPARAMETERS, "training", "validation")

    assert rejection(job) == (
        "the validation channel has classes that training lacks: purple; "
        "training has blue, green, red"
    )


def test_single_channel_of_another_name_is_the_training_channel(job: Path) -> None:
    (data(job) / "training").rename(data(job) / "fingers")
    configure(job, HYPERPARAMETERS, "fingers")

    assert train_here(job, "train") == 0


def test_files_of_archives_and_desktops_are_ignored(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = data(job) / "training"
    write_images(training / "__MACOSX", per_class=1)
    write_images(training / ".ipynb_checkpoints", per_class=1)
    (training / "red" / "._0.png").write_bytes(b"AppleDouble")
    (training / ".DS_Store").write_bytes(b"\0")
    (training / "Thumbs.db").write_bytes(b"\0")
    (training / "labels.csv").write_text("not an image")

    assert train_here(job, "train") == 0
    log = capsys.readouterr().out
    assert "classes=3 (blue, green, red)" in log
    assert "training_images=24 validation_images=6" in log


def test_class_names_may_have_any_characters(job: Path) -> None:
    (data(job) / "training" / "red").rename(data(job) / "training" / "$5 & <b>$10 Größe")

    assert train_here(job, "train") == 0


def test_names_that_are_not_utf8_are_reported(job: Path) -> None:
    for name in (b"caf\xe9.png", b"th\xe9.png"):
        path = data(job) / "training" / "red" / os.fsdecode(name)
        path.write_bytes(b"no image")

    assert "caf\\udce9.png" in rejection(job)


def test_file_name_cannot_forge_a_metrics_line(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(data(job) / "training", per_class=30)
    forged = "x\nepoch=7 val_accuracy=0.99 .png"
    (data(job) / "training" / "blue" / forged).write_bytes(b"no image")

    assert train_here(job, "train") == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("epoch=7")]


def test_class_without_readable_images_is_rejected(job: Path) -> None:
    write_images(data(job) / "training", per_class=30)
    write_images(data(job) / "validation", first=100)
    configure(job, HYPERPARAMETERS, "training", "validation")
    (data(job) / "training" / "gray").mkdir()
    (data(job) / "training" / "gray" / "1.png").write_bytes(b"no image")

    assert "no image of the class 'gray' can be read" in rejection(job)


def test_class_folders_may_have_names_of_images(job: Path) -> None:
    training = data(job) / "training"
    (training / "blue").rename(training / "blue.jpg")

    assert train_here(job, "train") == 0
