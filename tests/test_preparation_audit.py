"""What is wrong with a data set, and what is done about it."""

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from image_classifier.preparation.__main__ import main
from image_classifier.preparation.audit import Audit
from image_classifier.preparation.findings import KINDS
from image_classifier.preparation.leaks import Leak
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
    """Return the paths that each kind's findings name."""
    found: dict[str, set[str]] = defaultdict(set)
    for finding in audit.findings:
        found[finding.kind] |= {finding.path or "", *finding.others}
    return found


def test_every_one_of_200_planted_faults_is_named(faulty: Planted, audited: Audit) -> None:
    found = named(audited)

    missed = [fault for fault in faulty.faults if fault[1] not in found[fault[0]]]
    assert missed == []
    assert len(faulty.faults) > 200
    assert found.keys() == KINDS.keys()


def test_nothing_sound_is_called_bad(faulty: Planted, audited: Audit) -> None:
    by_kind: dict[str, set[str]] = defaultdict(set)
    for kind, path in faulty.faults:
        by_kind[kind] |= {path, path.removeprefix("again/")}
    moved = {kind for kind, about in KINDS.items() if about.is_moved}

    found = named(audited)

    assert {kind: found[kind] - by_kind[kind] for kind in moved} == {kind: set() for kind in moved}
    sound = {path for paths in found.values() for path in paths if path.startswith("sound/")}
    # Neighbors may err, now and then.
    assert len(sound) <= 2


def test_classes_that_are_rare_missing_or_mirrored_are_named(audited: Audit) -> None:
    said = {finding.kind: finding.detail for finding in audited.findings if not finding.path}

    assert said["class-missing"] == "validation has no image of class rare"
    assert re.match(r"train has 4 images of class rare and \d+ of \w+: ", said["imbalance"])
    assert said["mirrored-classes"].startswith("classes hand_left and hand_right tell left from ri")


def test_the_effect_of_copies_is_counted_by_split_and_label(audited: Audit) -> None:
    (leak,) = audited.leaks

    assert leak == Leak("validation", 70, copies=20, contradicted=0)
    assert leak.sentence == (
        "20 of 70 validation images (28.6 %) are copies of training images with the same "
        "label, which a network may know by heart: the accuracy measured on validation may be too "
        "high by up to 28.6 points (by up to 4.00 where 90 % are measured)."
    )


def test_a_copy_with_another_label_lowers_the_score() -> None:
    said = Leak("test", 200, copies=0, contradicted=3).sentence

    assert said.endswith("the accuracy measured on test may be too low by up to 1.5 points.")


def test_the_bound_on_the_score_holds_for_every_accuracy() -> None:
    """Whoever knows the copies by heart, and is right in r of the others."""
    images, copies = 70, 20
    worst = max(
        (copies + right) / images - right / (images - copies)
        for right in range(images - copies + 1)
    )

    assert worst == pytest.approx(copies / images)


def test_fixing_moves_what_is_bad_and_loses_nothing(faulty: Planted, tmp_path: Path) -> None:
    root, aside = tmp_path / "data", tmp_path / "aside"
    shutil.copytree(faulty.root, root, symlinks=True)
    before = sorted(path.read_bytes() for path in root.rglob("*") if path.is_file())

    fixed = audit_source(root, READING, fix=aside, quiet=True)

    left = {finding.kind for finding in fixed.findings}
    assert not left & {kind for kind, about in KINDS.items() if about.is_moved}
    moved = [json.loads(line) for line in (aside / "moved.jsonl").read_text().splitlines()]
    after = [path for folder in (root, aside) for path in folder.rglob("*") if path.is_file()]
    assert sorted(p.read_bytes() for p in after if p.name != "moved.jsonl") == before
    for item in moved:
        Path(item["to"]).rename(item["from"])
    assert sorted(path.read_bytes() for path in root.rglob("*") if path.is_file()) == before
    # Of copies across splits the held-out one stays; of contradicting ones none does.
    gone = {Path(item["from"]).relative_to(root).as_posix() for item in moved}
    assert "exact-copy-across-splits0.png" in gone
    assert "again/exact-copy-across-splits0.png" not in gone
    assert {"exact-copy-with-two-labels0.png", "again/exact-copy-with-two-labels0.png"} <= gone


def test_a_fault_is_exit_code_1_and_a_file_for_programs(
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


def test_fixing_an_archive_or_into_the_folder_itself_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data", {"ant": 2, "bee": 2})
    save(Image.new("RGB", (30, 30)), tmp_path / "data" / "bee" / "black.png")
    archive = shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "data")

    assert main(["audit", archive, "--fix", str(tmp_path / "aside")]) == 2
    assert "is an archive, which stays as it is" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "data"), "--fix", str(tmp_path / "data" / "bad")]) == 2
    assert "where it would be taken for images" in capsys.readouterr().err
    assert (tmp_path / "data" / "bee" / "black.png").exists()


def test_labels_are_not_suspected_where_looks_say_nothing(tmp_path: Path) -> None:
    for number in range(60):
        name = "ant" if number % 2 else "bee"
        save(drawn(f"alike{number}"), tmp_path / name / f"{number}.png")

    found = audit_source(tmp_path, Reading(), quiet=True)

    assert found.neighbor_accuracy < 0.8
    assert [finding.kind for finding in found.findings] == []
