"""Findings about a data set, and their correction with `--fix`."""

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from image_classifier.preparation.__main__ import main
from image_classifier.preparation.audit import Audit, Leak
from image_classifier.preparation.findings import KINDS
from image_classifier.preparation.pipeline import Reading, audit_source
from tests.planted import Planted, drawn, folders, planted, save

READING = Reading(manifests=[Path("labels.csv")], columns={"group": "patient"})


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted(tmp_path_factory.mktemp("faulty"))


@pytest.fixture(scope="module")
def audited(faulty: Planted) -> Audit:
    return audit_source(faulty.root, READING, quiet=True)


def named(audit: Audit) -> dict[str, set[str]]:
    """Return the paths in the findings of each kind."""
    found: dict[str, set[str]] = defaultdict(set)
    for finding in audit.findings:
        found[finding.kind] |= {finding.path or "", *finding.others}
    return found


def test_every_one_of_200_planted_faults_is_found(faulty: Planted, audited: Audit) -> None:
    found = named(audited)

    missed = [fault for fault in faulty.faults if fault[1] not in found[fault[0]]]
    assert missed == []
    assert len(faulty.faults) > 200
    # Class names have tests of their own.
    assert found.keys() == KINDS.keys() - {"similar-classes", "unusual-class"}


def test_sound_images_have_no_findings(faulty: Planted, audited: Audit) -> None:
    by_kind: dict[str, set[str]] = defaultdict(set)
    for kind, path in faulty.faults:
        by_kind[kind] |= {path, path.removeprefix("again/")}
    moved = {name for name, kind in KINDS.items() if kind.is_moved}

    found = named(audited)

    assert {kind: found[kind] - by_kind[kind] for kind in moved} == {kind: set() for kind in moved}
    sound = {path for paths in found.values() for path in paths if path.startswith("sound/")}
    # The most similar images are of another class by chance.
    assert len(sound) <= 2


def test_rare_missing_and_mirrored_classes_are_found(audited: Audit) -> None:
    details = {finding.kind: finding.detail for finding in audited.findings if not finding.path}

    assert details["class-missing"] == "validation has no image of class rare"
    assert re.match(r"train has 4 images of class rare and \d+ of \w+: ", details["imbalance"])
    assert details["mirrored-classes"].startswith("classes hand_left and hand_right differ by")


def test_split_without_a_readable_image_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data" / "train", {"ant": 6, "bee": 6})
    folders(tmp_path / "data" / "test", {"ant": 1})
    (tmp_path / "data/test/ant/0.png").write_bytes(b"no image")
    page = tmp_path / "new" / "page.html"

    assert main(["audit", str(tmp_path / "data"), "--page", str(page)]) == 1

    output = capsys.readouterr().out
    assert output.startswith("train: 12 images\ntest: 0 images\n")
    assert "class-missing: test has no image of class ant" in output
    assert "test, 0" in page.read_text("utf-8")


def test_effect_of_copies_is_counted_by_split_and_label(audited: Audit) -> None:
    (leak,) = audited.leaks

    assert leak == Leak("validation", 70, copies=20, contradicted=0)
    assert leak.sentence == (
        "20 of 70 validation images (28.6 %) are copies of training images with the same "
        "label, which a network can memorize: the accuracy measured on validation may be too "
        "high by up to 28.6 points (by up to 4.00 if 90 % is measured)."
    )


def test_copies_with_another_label_lower_the_score() -> None:
    sentence = Leak("test", 200, copies=0, contradicted=3).sentence

    assert sentence.endswith("the accuracy measured on test may be too low by up to 1.5 points.")


def test_bound_on_the_score_holds_for_every_accuracy() -> None:
    """A network that memorized the copies classifies r of the others correctly."""
    images, copies = 70, 20
    worst = max((copies + r) / images - r / (images - copies) for r in range(images - copies + 1))

    assert worst == pytest.approx(copies / images)


def test_fix_moves_bad_images_and_loses_nothing(faulty: Planted, tmp_path: Path) -> None:
    root, quarantine = tmp_path / "data", tmp_path / "quarantine"
    shutil.copytree(faulty.root, root, symlinks=True)
    before = sorted(path.read_bytes() for path in root.rglob("*") if path.is_file())

    fixed = audit_source(root, READING, fix=quarantine, quiet=True)

    left = {finding.kind for finding in fixed.findings}
    assert not left & {name for name, kind in KINDS.items() if kind.is_moved}
    moved = [json.loads(line) for line in (quarantine / "moved.jsonl").read_text().splitlines()]
    after = [path for folder in (root, quarantine) for path in folder.rglob("*") if path.is_file()]
    assert sorted(p.read_bytes() for p in after if p.name != "moved.jsonl") == before
    for item in moved:
        Path(item["to"]).rename(item["from"])
    assert sorted(path.read_bytes() for path in root.rglob("*") if path.is_file()) == before
    # Copies across splits: the one outside training stays. Contradicting copies: none stays.
    moved_names = {Path(item["from"]).relative_to(root).as_posix() for item in moved}
    assert "exact-copy-across-splits0.png" in moved_names
    assert "again/exact-copy-across-splits0.png" not in moved_names
    assert {
        "exact-copy-with-two-labels0.png",
        "again/exact-copy-with-two-labels0.png",
    } <= moved_names


def test_audit_with_a_fault_exits_with_1_and_writes_json_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data" / "train", {"ant": 6, "bee": 6})
    folders(tmp_path / "data" / "validation", {"ant": 3, "bee": 3}, prefix="v")
    command = ["audit", str(tmp_path / "data"), "--findings", str(tmp_path / "found.jsonl")]
    assert main(command) == 0
    assert (tmp_path / "found.jsonl").read_text() == ""
    capsys.readouterr()
    shutil.copy(tmp_path / "data/train/ant/1.png", tmp_path / "data/validation/ant/copy.png")

    assert main([*command, "--quiet"]) == 1

    assert capsys.readouterr().out == ""
    (line,) = (tmp_path / "found.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "severity": "fault",
        "kind": "exact-copy-across-splits",
        "path": "train/ant/1.png",
        "detail": "the same file, 2 times, in train, validation",
        "others": ["validation/ant/copy.png"],
    }


def test_fix_of_an_archive_or_into_the_folder_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data", {"ant": 2, "bee": 2})
    save(Image.new("RGB", (30, 30)), tmp_path / "data" / "bee" / "black.png")
    archive = shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "data")

    assert main(["audit", archive, "--fix", str(tmp_path / "quarantine")]) == 2
    assert "is an archive, which is not changed" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "data"), "--fix", str(tmp_path / "data" / "bad")]) == 2
    assert "would be read as images" in capsys.readouterr().err
    assert (tmp_path / "data" / "bee" / "black.png").exists()


def test_labels_are_not_suspected_if_similarity_does_not_predict_them(tmp_path: Path) -> None:
    for number in range(60):
        name = "ant" if number % 2 else "bee"
        save(drawn(f"alike{number}"), tmp_path / name / f"{number}.png")

    found = audit_source(tmp_path, Reading(), quiet=True)

    assert found.label_check.accuracy < 0.8
    assert any("Labels were not checked" in sentence for sentence in found.sentences())
    assert "label-suspect" not in {finding.kind for finding in found.findings}
