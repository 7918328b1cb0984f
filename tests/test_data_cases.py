"""Faulty data sets, each modeled on a public report: the right classes, or one sentence."""

import csv
import json
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from container.classifier.errors import UserError
from container.classifier.labeled_images import check_splits, labeled_splits
from image_classifier.preparation.__main__ import main
from tests.opt_ml import HYPERPARAMETERS, configure, failure, make_job, train_here, write_images
from tests.planted import drawn, encoded, folders

PNG = encoded(drawn("any"), "PNG")


def prepared(source: Path, *options: str) -> list[dict[str, str]]:
    """Return the rows of a prepared data set."""
    out = source.parent / "out"
    assert main(["prepare", str(source), str(out), "--quiet", *options]) == 0
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text("utf-8").splitlines()]


def classes(source: Path, *options: str) -> set[str]:
    return {row["label"] for row in prepared(source, *options)}


def findings(source: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (source.parent / "out" / "findings.jsonl").read_text("utf-8").splitlines():
        item = json.loads(line)
        found.setdefault(item["kind"], []).append(item["path"])
    return found


def zipped(path: Path, names: Sequence[str], encoding: str) -> Path:
    """Write a zip whose names have an encoding that no flag states."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            raw = name.encode(encoding)
            stand_in = f"{number:03d}".ljust(len(raw), "~")
            archive.writestr(stand_in, encoded(drawn(number), "PNG"))
    data = path.read_bytes()
    for number, name in enumerate(names):
        raw = name.encode(encoding)
        data = data.replace(f"{number:03d}".ljust(len(raw), "~").encode(), raw)
    path.write_bytes(data)
    return path


def test_job_uses_the_splits_in_its_only_channel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(tmp_path)
    channel = job / "input" / "data" / "training"
    for path in sorted(channel.iterdir()):
        path.rename(channel.parent / path.name)
        (channel / "train").mkdir(exist_ok=True)
        (channel.parent / path.name).rename(channel / "train" / path.name)
    write_images(channel / "valid", first=100, per_class=3)

    assert train_here(job, "train") == 0

    log = capsys.readouterr().out
    assert "the training channel contains splits, which are used as channels: train (" in log
    assert "validation_images=9" in log
    manifest = json.loads((job / "model" / "manifest.json").read_text("utf-8"))
    assert manifest["class_names"] == ["blue", "green", "red"]


def test_job_with_splits_none_has_classes_called_like_splits(tmp_path: Path) -> None:
    job = make_job(tmp_path, splits="none")
    channel = job / "input" / "data" / "training"
    (channel / "blue").rename(channel / "test")

    assert train_here(job, "train") == 0

    manifest = json.loads((job / "model" / "manifest.json").read_text("utf-8"))
    assert manifest["class_names"] == ["green", "red", "test"]


def test_job_with_splits_in_two_channels_is_rejected(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    data = job / "input" / "data"
    write_images(data / "training" / "train")
    write_images(data / "training" / "test", first=50)
    for name in ("blue", "green", "red"):
        for path in (data / "training" / name).iterdir():
            path.unlink()
        (data / "training" / name).rmdir()
    write_images(data / "validation", first=100)
    configure(job, HYPERPARAMETERS, "training", "validation")

    assert train_here(job, "train") == 1
    assert failure(job).startswith("the training channel contains the splits test (30 images)")


def test_splits_in_languages_with_accents_are_splits(tmp_path: Path) -> None:
    source = tmp_path / "chats"
    accented = unicodedata.normalize("NFD", "Entraînement")
    for split in (accented, "validação"):
        folders(source / split, {"café": 3, "thé": 3}, prefix=split)

    rows = prepared(source)

    assert Counter((row["split"], row["label"]) for row in rows) == {
        (split, name): 3 for split in ("train", "validation") for name in ("café", "thé")
    }
    assert set(labeled_splits(source).files) == {"train", "validation"}


def test_splits_of_two_downloads_are_not_classes(tmp_path: Path) -> None:
    folders(tmp_path / "archive" / "train", {"ant": 3, "bee": 3})
    folders(tmp_path / "archive (1)" / "test", {"ant": 3, "bee": 3})

    with pytest.raises(UserError, match=r"the folder archive.* contains splits, and archive"):
        labeled_splits(tmp_path)


def test_class_folders_with_splits_need_not_have_all_splits(tmp_path: Path) -> None:
    folders(tmp_path, {"ant/train": 3, "ant/test": 3, "bee/train": 3})

    files = labeled_splits(tmp_path).files

    assert {split: {file.class_name for file in files[split]} for split in files} == {
        "train": {"ant", "bee"},
        "test": {"ant"},
    }


def test_numbers_in_names_are_not_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "pets"
    source.mkdir()
    for name in ("Abyssinian", "american_bulldog", "pug"):
        for number in range(1, 13):
            (source / f"{name}_{number}.png").write_bytes(encoded(drawn(f"{name}{number}"), "PNG"))

    assert main(["prepare", str(source), str(tmp_path / "out"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "such as '1' from Abyssinian_1.png, and they are counters" in error
    assert "--label name-number" in error
    assert classes(source, "--label", "name-number") == {"Abyssinian", "american_bulldog", "pug"}
    with pytest.raises(UserError, match="and they are counters"):
        labeled_splits(source)


@pytest.mark.parametrize("name", ["unlabeled", "predict", "to_predict", "test", "val"])
def test_folder_of_a_split_next_to_class_folders_is_not_a_class(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    folders(source, {"cats": 6, "dogs": 6, name: 6})

    assert main(["prepare", str(source), str(tmp_path / "out"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert f"{name} looks like a split, but cats is next to it" in error
    assert "--splits none" in error
    with pytest.raises(UserError, match="looks like a split"):
        labeled_splits(source)
    assert classes(source, "--splits", "none") == {"cats", "dogs", name}


def test_table_in_the_source_is_suggested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "in", {"train_images": 12})
    (tmp_path / "in" / "train.csv").write_text("image_id,label\n", encoding="utf-8")

    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "no image has a label" in error
    assert "--manifest train.csv reads labels of it" in error


def test_numbers_that_are_labels_are_read(tmp_path: Path) -> None:
    source = tmp_path / "digits"
    source.mkdir()
    for number in range(30):
        (source / f"{number:05d}_{number % 3}.png").write_bytes(encoded(drawn(number), "PNG"))

    assert classes(source) == {"0", "1", "2"}


def test_images_are_recognized_by_their_content(tmp_path: Path) -> None:
    source = tmp_path / "fruit"
    for index, suffix in enumerate((".jfif", ".jpe", "", ".0001", ".tif")):
        for name in ("fig", "pear"):
            for number in range(3):
                path = source / name / f"{index}{number}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded(drawn(f"{name}{path.name}"), "JPEG"))

    rows = prepared(source)

    assert Counter(row["label"] for row in rows) == {"fig": 15, "pear": 15}
    # The suffixes of images stay, the others are replaced or added.
    assert {Path(row["path"]).suffix for row in rows} == {".jfif", ".jpe", ".jpg", ".tif"}
    assert len(labeled_splits(source).single()) == 30


@pytest.mark.parametrize("kind", ["PPM", "JPEG2000"])
def test_formats_that_training_does_not_read_are_converted(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in"
    for name in ("field", "river"):
        (source / name).mkdir(parents=True)
        for number in range(8):
            data = encoded(drawn(f"{name}{number}", name), kind)
            (source / name / f"{number}.jpg").write_bytes(data)

    rows = prepared(source)

    assert len(rows) == 16
    assert {Path(row["path"]).suffix for row in rows} == {".png"}
    assert len(findings(source)["converted"]) == 16
    splits = [labeled_splits(tmp_path / "out" / name) for name in ("train", "validation", "test")]
    assert sum(len(split.single()) for split in splits) == 16


def test_job_stops_if_a_folder_or_many_files_are_lost(tmp_path: Path) -> None:
    folders(tmp_path, {"ant": 40, "bee": 40})
    (tmp_path / "ant" / "scan.pgm").write_bytes(encoded(drawn("scan"), "PPM"))
    (tmp_path / "ant" / "notes.xml").write_text("<annotation/>", encoding="utf-8")
    assert len(labeled_splits(tmp_path).single()) == 80

    for number in range(5):
        (tmp_path / "bee" / f"{number}.bin").write_bytes(b"\0\1")
    with pytest.raises(UserError, match="6 of 86 images cannot be read, more than 5%"):
        labeled_splits(tmp_path)

    (tmp_path / "wasp").mkdir()
    (tmp_path / "wasp" / "1.pgm").write_bytes(encoded(drawn("scan"), "PPM"))
    with pytest.raises(UserError, match=r"no file in .*/wasp can be read, such as .*PPM"):
        labeled_splits(tmp_path)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["ant/1.png", "bee/1.png"], "every class has a single image: add images"),
        (["ant/1.png", "ant/2.png", "bee/1.png", "bee/2.png", "wasp/1.svg"], "no file in wasp"),
        (["ant.zip", "bee.zip"], "ant.zip is an archive: name it as the source, or several of"),
        (["ant.7z"], "ant.7z is an archive: unpack it"),
    ],
)
def test_prepare_rejects_what_training_rejects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: list[str], reason: str
) -> None:
    source = tmp_path / "in"
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(encoded(drawn(name), "PNG") if ".png" in name else b"<svg/>")

    command = ["prepare", str(source), str(tmp_path / "out"), "--validation", "0", "--test", "0"]

    assert main(command) == 2
    assert reason in capsys.readouterr().err
    with pytest.raises(UserError):
        check_splits(labeled_splits(source).files)


def test_zip_names_in_utf_8_without_the_flag(tmp_path: Path) -> None:
    names = [f"Obst/{kind}/{n}.png" for kind in ("Äpfel", "Birnen") for n in range(8)]
    source = zipped(tmp_path / "mac.zip", [unicodedata.normalize("NFD", n) for n in names], "utf-8")

    assert classes(source) == {"Äpfel", "Birnen"}


def test_other_encodings_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{kind}/{n}.png" for kind in ("猫", "犬") for n in range(8)]
    source = zipped(tmp_path / "windows.zip", names, "shift_jis")

    assert main(["prepare", str(source), str(tmp_path / "out"), "--quiet"]) == 2
    assert "is not UTF-8: name the encoding with --encoding" in capsys.readouterr().err.replace(
        "which ", ""
    )
    assert classes(source, "--encoding", "shift_jis") == {"猫", "犬"}


def test_both_forms_of_unicode_are_one_class(tmp_path: Path) -> None:
    source = tmp_path / "two.zip"
    with zipfile.ZipFile(source, "w") as archive:
        forms: Sequence[tuple[str, Literal["NFD", "NFC"]]] = (("train", "NFD"), ("val", "NFC"))
        for split, form in forms:
            for kind in ("café", "thé"):
                for number in range(4):
                    name = unicodedata.normalize(form, f"{split}/{kind}/{number}.png")
                    archive.writestr(name, encoded(drawn(f"{split}{kind}{number}"), "PNG"))

    assert Counter((row["split"], row["label"]) for row in prepared(source)) == {
        (split, kind): 4 for split in ("train", "validation") for kind in ("café", "thé")
    }


def test_archives_in_archives_are_unpacked(tmp_path: Path) -> None:
    inner = zipfile.ZipFile(tmp_path / "train.zip", "w")
    with inner:
        for kind in ("ant", "bee"):
            for number in range(8):
                inner.writestr(
                    f"train/{kind}/{number}.png", encoded(drawn(kind + str(number)), "PNG")
                )
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "train.zip", "train.zip")
        archive.writestr("sample.csv", "id,label\n")

    rows = prepared(tmp_path / "all.zip")

    assert {row["split"] for row in rows} == {"train", "validation"}
    assert len(rows) == 16


def test_deflate64_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "large.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("ant/1.png", PNG)
    data = bytearray(source.read_bytes())
    # The method of compression, in the entry and in the directory.
    data[8] = data[data.index(b"PK\1\2") + 10] = 9
    source.write_bytes(data)

    assert main(["prepare", str(source), str(tmp_path / "out"), "--quiet"]) == 2
    assert "large.zip is compressed with Deflate64" in capsys.readouterr().err


def manifest(source: Path, rows: Sequence[tuple[str, str]]) -> None:
    with (source / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *rows])


def test_row_never_takes_a_file_of_another_folder(tmp_path: Path) -> None:
    source = tmp_path / "in"
    folders(source / "train", {"cat": 12, "dog": 12})
    folders(source / "extra", {"dog": 1}, prefix="x")
    rows = [(f"train/{kind}/{n}.png", kind) for kind in ("cat", "dog") for n in range(12)]
    manifest(source, [*rows, ("train/cat/x0.png", "cat"), ("train/Cat/0.png", "cat")])

    found = prepared(source, "--manifest", "labels.csv")

    assert {row["source"] for row in found} == {name for name, _ in rows}
    kinds = findings(source)
    assert kinds["missing-file"] == ["train/cat/x0.png"]
    assert kinds["other-case"] == ["train/Cat/0.png"]
    assert kinds["unlabeled"] == ["extra/dog/x0.png"]


def test_ambiguous_names_are_named_with_their_candidates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    folders(source / "images", {"cat": 6, "dog": 6})
    manifest(source, [(f"{n}.png", kind) for kind in ("cat", "dog") for n in range(6)])

    command = ["prepare", str(source), str(tmp_path / "out"), "--manifest", "labels.csv"]
    assert main([*command, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "2 files have this name: images/cat/0.png, images/dog/0.png" in error


def test_labels_that_name_every_image_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    folders(source, {"cat": 12, "dog": 12})
    rows = [(f"{kind}/{n}.png", f"{kind} {n}") for kind in ("cat", "dog") for n in range(12)]
    manifest(source, rows)

    command = ["prepare", str(source), str(tmp_path / "out"), "--manifest", "labels.csv"]
    assert main([*command, "--quiet"]) == 2
    assert "every image has a different label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"train": {"ant": 5, "bee": 5}, "val": {"ant": 2, "wasp": 2}}, "training lacks: wasp"),
        ({"train": {"ant": 5}, "test": {"ant": 2, "bee": 2}}, "training channel has one: 'ant'"),
        ({"val": {"ant": 5, "bee": 5}, "test": {"ant": 2}}, "no images for training"),
    ],
)
def test_ready_means_that_training_accepts_it(
    counts: dict[str, dict[str, int]],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for split, by_class in counts.items():
        folders(tmp_path / "in" / split, by_class, prefix=split)

    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--quiet"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_class_that_is_called_like_a_split(tmp_path: Path) -> None:
    source = tmp_path / "in"
    folders(source, {"train": 8, "test": 8})

    assert classes(source, "--splits", "none") == {"train", "test"}


def test_link_out_of_the_source_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "in", {"ant": 6, "bee": 6})
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "in" / "ant" / "link.png").symlink_to(tmp_path / "secret.png")

    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--quiet"]) == 2
    assert "outside of the source: put the file there" in capsys.readouterr().err


def test_files_of_programs_are_ignored(tmp_path: Path) -> None:
    source = tmp_path / "in"
    folders(source, {"ant": 6, "bee": 6})
    for name in ("ant/@eaDir/1.png", "__MACOSX/1.png", ".ipynb_checkpoints/1.png", "Thumbs.db"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(PNG)

    assert len(prepared(source)) == 12
    assert findings(source).keys() & {"other-file", "unknown"} == set()
