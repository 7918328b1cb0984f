"""`python -m image_classifier.preparation`, run as a user does."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from container.classifier.environment import IMAGE_MEMORY_VARIABLE
from container.classifier.labeled_images import labeled_files
from image_classifier.platform import hands
from image_classifier.preparation import dataset
from image_classifier.preparation.__main__ import main
from image_classifier.preparation.scan import MIN_PARALLEL
from tests.planted import drawn, encoded, folders, save

CLASSES = {f"{count}{side}" for count in range(6) for side in "LR"}


@pytest.fixture(scope="module")
def hands_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hands in the layout of the Kaggle data set: train and test, the label in the file name."""
    root = tmp_path_factory.mktemp("hands")
    folder = root / "in" / "fingers"
    folder.mkdir(parents=True)
    hands.write_images(folder / "train", 480, 0)
    hands.write_images(folder / "test", 120, 1)
    return Path(shutil.make_archive(str(root / "fingers"), "zip", root / "in"))


@pytest.fixture(scope="module")
def prepared(hands_zip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    assert main(["prepare", str(hands_zip), str(out), "--quiet"]) == 0
    return out


def rows(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def contents(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*.png")}


def test_prepare_makes_class_folders_splits_and_tables(prepared: Path) -> None:
    splits = {"train": 432, "validation": 48, "test": 120}
    for split, count in splits.items():
        found = labeled_files(prepared / split)
        assert len(found) == count
        assert {file.class_name for file in found} == CLASSES
        text = (prepared / f"info_{split}.csv").read_text(encoding="utf-8")
        table = csv.DictReader(text.splitlines())
        assert {row["class_name"]: int(row["images"]) for row in table} == Counter(
            file.class_name for file in found
        )
    assert Counter(row["split"] for row in rows(prepared)) == splits
    assert rows(prepared)[0].keys() >= {"path", "sha256", "size_bytes", "mode", "label", "split"}
    assert all((prepared / row["path"]).is_file() for row in rows(prepared))
    assert {path.name for path in prepared.parent.iterdir()} == {"out"}


def test_existing_split_is_kept(hands_zip: Path, prepared: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(hands_zip, tmp_path)

    assert contents(prepared / "test") == contents(tmp_path / "fingers" / "test")


def test_within_reads_one_folder_of_an_archive(
    hands_zip: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.unpack_archive(hands_zip, tmp_path / "in")
    shutil.copytree(tmp_path / "in" / "fingers", tmp_path / "in", dirs_exist_ok=True)
    twice = shutil.make_archive(str(tmp_path / "twice"), "zip", tmp_path / "in")
    out = tmp_path / "out"

    assert main(["prepare", twice, str(out), "--quiet"]) == 2
    assert "fingers is next to them: use only the folder" in capsys.readouterr().err
    assert main(["prepare", twice, str(out), "--quiet", "--within", "absent"]) == 2
    assert "has no folder absent; it has fingers, test, train" in capsys.readouterr().err
    assert main(["prepare", twice, str(out), "--quiet", "--within", "../in"]) == 2
    assert main(["prepare", twice, str(out), "--quiet", "--within", "fingers"]) == 0
    assert contents(out) == contents(prepared)


def test_mirrored_classes_are_reported(prepared: Path) -> None:
    found = [json.loads(line) for line in (prepared / "findings.jsonl").read_text().splitlines()]

    mirrored = [item["detail"] for item in found if item["kind"] == "mirrored-classes"]
    assert len(mirrored) == 6
    assert "leave horizontal_flip off" in mirrored[0]


def test_splits_do_not_depend_on_file_names(prepared: Path, tmp_path: Path) -> None:
    for row in rows(prepared):
        if row["split"] != "test":
            target = tmp_path / "in" / "train" / f"{row['sha256'][:9]}_{row['label']}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(prepared / row["path"], target)

    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--quiet"]) == 0

    assert contents(tmp_path / "out" / "validation") == contents(prepared / "validation")


def test_prepared_data_set_passes_an_audit(prepared: Path) -> None:
    assert main(["audit", str(prepared), "--quiet"]) == 0


def test_undecodable_images_are_left_out_and_the_source_is_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "in", {"ant": 20, "bee": 20})
    (tmp_path / "in" / "bee" / "broken.png").write_bytes(b"no image")
    before = sorted(path.name for path in (tmp_path / "in").rglob("*"))

    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out")]) == 0

    assert sorted(path.name for path in (tmp_path / "in").rglob("*")) == before
    assert len(rows(tmp_path / "out")) == 40
    output = capsys.readouterr().out
    assert f"findings, with paths in {tmp_path / 'in'}:\n" in output
    assert "fault        1  undecodable: bee/broken.png: not an image of a known format" in output
    assert "1 faults; only images that cannot be read are left out: before training, add" in output
    assert "train: 33 images" in output


def test_copies_and_groups_stay_in_one_split(tmp_path: Path) -> None:
    for number in range(40):
        name = "ant" if number % 2 else "bee"
        image = drawn(number, name)
        save(image, tmp_path / "in" / name / f"p{number // 4}_{number}.png")
        (tmp_path / "in" / name / f"q{number}_again.jpg").write_bytes(
            encoded(image, "JPEG", quality=70)
        )
    command = ["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--validation", "0.2"]
    command += ["--test", "0.2", "--group", r"/(?P<group>p\d+)_", "--quiet"]

    assert main(command) == 0
    assert main(["audit", str(tmp_path / "out"), "--group", r"(?P<group>p\d+)_", "--quiet"]) == 0

    splits = Counter(row["split"] for row in rows(tmp_path / "out"))
    assert splits == {"train": 48, "validation": 16, "test": 16}


def test_prepare_prints_the_number_of_images_in_the_new_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "in", {"ant": 20, "bee": 20})
    (tmp_path / "in" / "ant" / "empty.png").touch()

    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out")]) == 0

    splits = Counter(row["split"] for row in rows(tmp_path / "out"))
    assert [f"{name}: {count} images" for name, count in splits.items()] == sorted(
        capsys.readouterr().out.splitlines()[:3]
    )


def test_fix_that_leaves_no_image_of_a_class_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "in", {"ant": 20, "bee": 20})
    for number in range(4):
        save(drawn(f"tiny{number}").resize((8, 8)), tmp_path / "in" / "cat" / f"{number}.png")
    command = ["prepare", str(tmp_path / "in"), str(tmp_path / "out")]

    assert main([*command, "--fix", str(tmp_path / "quarantine")]) == 2

    assert "--fix leaves no image of the class 'cat'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_prepare_with_fix_leaves_bad_images_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "in", {"ant": 20, "bee": 20})
    shutil.copy(tmp_path / "in/ant/1.png", tmp_path / "in/bee/same.png")
    (tmp_path / "in" / "ant" / "cut.png").write_bytes(encoded(drawn(1), "PNG")[:200])
    command = ["prepare", str(tmp_path / "in"), str(tmp_path / "out")]

    assert main([*command, "--fix", str(tmp_path / "quarantine")]) == 0

    assert f"3 bad images are in {tmp_path / 'quarantine'}: " in capsys.readouterr().out
    assert len(rows(tmp_path / "out")) == 39
    assert (tmp_path / "out" / "findings.jsonl").read_text() == ""
    assert {path.name for path in (tmp_path / "quarantine").rglob("*.png")} == {
        "1.png",
        "same.png",
        "cut.png",
    }
    assert (tmp_path / "in" / "ant" / "cut.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--validation", "0.5", "--test", "0.5"], "leave nothing for training"),
        (["--validation", "0.001"], "no image is left for validation"),
        (["--columns", "label=x"], "name the manifest with --manifest"),
        (["--label", "fingers", "--manifest", "a.csv"], "omit one"),
        (["--manifest", "none.csv"], "none.csv: No such file"),
        (["--label", "(?P<label>[et]/)"], "the class name 'e/' cannot be a folder's name"),
        (["--label", "(?P<label>[.]jpg)$"], "no image has a label"),
        (["--label", "(?P<label>png)$"], "at least two classes"),
        (["--group", "x"], "has no group (?P<group>...)"),
    ],
)
def test_failure_is_one_sentence_and_leaves_no_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    folders(tmp_path / "in", {"ant": 6, "bee": 6})

    code = main(["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--quiet", *options])

    error = capsys.readouterr().err
    assert code == 2
    assert words in error
    assert error.startswith("preparation: ")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_share_of_an_existing_split_or_an_existing_folder_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        folders(tmp_path / "in" / split, {"ant": 4, "bee": 4}, prefix=split)
    command = ["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--quiet"]

    assert main([*command, "--validation", "0.3"]) == 2
    assert "has a validation split, which is kept" in capsys.readouterr().err
    assert main(command) == 0
    assert not (tmp_path / "out" / "test").exists()
    assert main(command) == 2
    assert "out exists already" in capsys.readouterr().err


def test_folder_that_another_run_makes_in_the_meantime_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "in", {"ant": 6, "bee": 6})
    command = ["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--quiet"]
    write = dataset.write

    def write_later(*arguments: Any, **options: Any) -> None:  # noqa: ANN401
        monkeypatch.setattr(dataset, "write", write)
        assert main(command) == 0
        write(*arguments, **options)

    monkeypatch.setattr(dataset, "write", write_later)

    assert main(command) == 2
    expected = f"preparation: {tmp_path}/out exists already: use a new folder, or remove it\n"
    assert capsys.readouterr().err == expected
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_names_that_differ_only_in_case_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "in", {"ant": 6, "bee": 6})
    for name in ("X.png", "x.png"):
        save(drawn(name), tmp_path / "in" / "ant" / name)

    code = main(["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--quiet", "--test", "0"])

    both_in_one_split = code == 2
    error = capsys.readouterr().err
    assert both_in_one_split == ("would both become" in error)
    assert both_in_one_split or len(rows(tmp_path / "out")) == 14


def test_unusable_output_path_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "in", {"ant": 6, "bee": 6})
    (tmp_path / "file").touch()

    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "file" / "out")]) == 2

    assert "preparation: " in capsys.readouterr().err


def test_many_images_are_read_by_several_processes(tmp_path: Path) -> None:
    data = [encoded(drawn(number, size=16), "PNG") for number in range(MIN_PARALLEL + 10)]
    for number, file in enumerate(data):
        path = tmp_path / "in" / ("ant" if number % 2 else "bee") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)

    # In a subprocess, because spawned processes import the main module again.
    command = [sys.executable, "-m", "image_classifier.preparation", "prepare", "in", "out"]
    result = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True)

    assert result.returncode == 0, result.stderr
    assert len(rows(tmp_path / "out")) == MIN_PARALLEL + 10


def test_output_in_the_source_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(drawn(0), tmp_path / "in" / "ant" / "1.png")

    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "in" / "out"), "--quiet"]) == 2
    assert "would be read as images" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["ant"]


def test_file_name_that_is_not_utf8_is_kept(tmp_path: Path) -> None:
    for number, name in enumerate((b"a.png", b"\xff\xfe.png", b"b.png")):
        save(drawn(number), tmp_path / "in" / "ant" / os.fsdecode(name))
        save(drawn(10 + number), tmp_path / "in" / "bee" / f"{number}.png")
    out = tmp_path / "out"

    command = ["prepare", str(tmp_path / "in"), str(out), "--quiet", "--validation", "0"]

    assert main([*command, "--test", "0"]) == 0
    assert main(["audit", str(out), "--quiet", "--page", str(tmp_path / "page.html")]) == 0
    assert [row["split"] for row in rows(out)] == ["train"] * 6
    assert len(list((out / "train").rglob("*.png"))) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_leaves_no_files(tmp_path: Path, number: signal.Signals) -> None:
    for count in range(3000):
        path = tmp_path / "in" / ("ant" if count % 2 else "bee") / f"{count}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(drawn(count % 50), "PNG"))
    command = [sys.executable, "-m", "image_classifier.preparation", "prepare", "in", "out"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not any(path.name.startswith(".prepare-") for path in tmp_path.iterdir()):
            time.sleep(0.01)
        # While it reads the images.
        time.sleep(1)
        process.send_signal(number)
        error = process.communicate()[1]

    assert process.returncode == 2
    assert "preparation: stopped" in error
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_heic_and_jpegs_that_are_only_decoded_at_a_fraction_are_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(tmp_path / "in", {"ant": 8, "bee": 8})
    shutil.copy(Path(__file__).with_name("drawn.heic"), tmp_path / "in" / "ant" / "phone.HEIC")
    save(drawn("large", size=2400), tmp_path / "in" / "bee" / "large.jpg")
    # Decoding it as a whole takes more.
    monkeypatch.setenv(IMAGE_MEMORY_VARIABLE, "16")

    assert main(["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--quiet"]) == 0

    found = {Path(row["source"]).name: row for row in rows(tmp_path / "out")}
    assert {"phone.HEIC", "large.jpg"} <= found.keys()
    assert str(found["large.jpg"]["width"]) == str(found["large.jpg"]["height"]) == "2400"
    assert '"fault"' not in (tmp_path / "out/findings.jsonl").read_text()


def test_classes_that_can_be_leftovers_are_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path, {"ant": 3, "bee": 3, "Others": 3})

    assert main(["audit", str(tmp_path)]) == 0

    assert "unusual-class: the folder Others is a class" in capsys.readouterr().out


def test_classes_that_differ_in_case_are_findings_and_not_mirrored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path, {"Cat": 3, "cat": 3, "dog": 3})

    assert main(["audit", str(tmp_path)]) == 0

    output = capsys.readouterr().out
    assert "similar-classes: the classes 'Cat', 'cat' are different ones" in output
    assert "mirrored-classes" not in output
