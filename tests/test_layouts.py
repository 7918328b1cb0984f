"""Data sets as people have them: exactly the right classes and splits, or one sentence."""

import json
import shlex
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from container.classifier.labeled_images import labeled_splits
from image_classifier.preparation.__main__ import main
from tests.public_layouts import LAYOUTS, NONE, Layout


def command(layout: Layout, source: Path, out: Path) -> list[str]:
    return ["prepare", str(source), str(out), "--quiet", *shlex.split(layout.options)]


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_public_layout_gives_its_classes_and_splits(
    layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = layout.write(tmp_path / "in")

    code = main(command(layout, tmp_path / "in", tmp_path / "out"))

    if layout.refused:
        assert code == 2
        assert layout.refused in capsys.readouterr().err
        return
    assert (capsys.readouterr().err, code) == ("", 0)
    within = layout.options.partition("--within ")[2].partition(" ")[0]
    prefix = f"{within}/" if within else ""
    rows = lines(tmp_path / "out" / "manifest.jsonl")
    found = {prefix + row["source"]: (row["label"], row["split"]) for row in rows}
    expected = layout.expected()
    assert {path: label for path, (label, _) in found.items()} == {
        path: label for path, (label, _) in expected.items()
    }
    published = {path: split for path, (_, split) in expected.items() if split}
    # Only a missing validation is taken from training.
    assert {
        path: found[path][1].replace("validation", published[path])
        if published[path] == "train"
        else found[path][1]
        for path in published
    } == published
    left_out = {item["path"] for item in lines(tmp_path / "out" / "findings.jsonl")}
    unlabeled = {item.path for item in items if item.split == NONE}
    assert {path for path in unlabeled if path.startswith(prefix)} <= left_out


@pytest.mark.parametrize(
    "layout",
    [item for item in LAYOUTS if not item.options and item.kind != "PPM"],
    ids=lambda layout: layout.name,
)
def test_a_single_training_channel_is_read_as_prepare_reads_it(
    layout: Layout, tmp_path: Path
) -> None:
    items = layout.write(tmp_path)

    if layout.refused or any(item.split == NONE for item in items):
        with pytest.raises(UserError):
            labeled_splits(tmp_path)
        return
    splits = labeled_splits(tmp_path).files

    found = {
        file.path.relative_to(tmp_path).as_posix(): (file.class_name, split)
        for split, files in splits.items()
        for file in files
    }
    assert found == {
        path: (label, split or "train") for path, (label, split) in layout.expected().items()
    }
