"""Random data sets in random layouts: exactly their classes and splits, or rejected.

`LAYOUT_EXAMPLES=2000 python -m pytest tests/test_random_layouts.py` draws more of them.
"""

import os
import shutil
import tarfile
import tempfile
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from container.classifier.errors import UserError
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.pipeline import Reading, audit_source
from tests.planted import encoded

EXAMPLES = int(os.environ.get("LAYOUT_EXAMPLES", "40"))

PNG = encoded(Image.linear_gradient("L").resize((16, 16)), "PNG")

SPELLINGS = {
    "train": ("train", "Train", "TRAINING", "train_set", "X_train", "train2017", "Train Images"),
    "validation": (
        "val",
        "valid",
        "Validation",
        "dev",
        "X_val",
        "val2017",
        "eval",
        "validation-set",
    ),
    "test": ("test", "Testing", "testset", "X_test", "hold-out", "Test Images", "test2017"),
}

# Names of which no data set may be rejected, and names that look like something else.
PLAIN = ("ant", "bee", "wasp", "great dane", "Äpfel", "café", "犬", "001.Albatross", "no_tumor")
ODD = ("train", "test", "val", "images", "1", "2", "10", "a", "B", "data", "train cats", "x_test",
       "unlabeled", "labels", "n01440764")  # fmt: skip

# {w} enclosing folders, {s} the folder of a split, {c} a class, {n} a number, {u} a unique one.
WITH_SPLITS = (
    "{w}{s}/{c}/{n}",
    "{w}{s}/{s}/{c}/{n}",
    "{w}{s}/images/{c}/{n}",
    "{w}images/{s}/{c}/{n}",
    "{w}{s}/{c}/more/{n}",
    "{w}{c}/{s}/{n}",
    "{w}{s}/{u}_{c}",
)
WITHOUT = ("{w}{c}/{n}", "{w}{c}/more/{n}", "{w}{u}_{c}")


@dataclass(frozen=True)
class Tree:
    """A labeled data set in a layout."""

    files: dict[str, tuple[str, str | None]]
    """Class and split by path."""

    packing: str
    is_listed: bool
    """Whether a manifest has the labels."""

    is_plain: bool


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    is_plain = draw(st.booleans())
    text = st.text("abcXYZ019 -_.éü", min_size=1, max_size=8).map(str.strip)
    usable = text.filter(lambda name: name and not name.startswith(".") and name[-1] not in ". ")
    names = st.sampled_from(PLAIN) if is_plain else st.sampled_from(ODD + PLAIN) | usable
    classes = draw(
        st.lists(
            names,
            min_size=2,
            max_size=4,
            unique_by=lambda n: unicodedata.normalize("NFC", n).casefold(),
        )
    )
    has_splits = draw(st.booleans())
    splits: list[str | None] = [None]
    if has_splits:
        splits = [
            "train",
            *draw(st.sampled_from([["validation"], ["test"], ["validation", "test"]])),
        ]
    template = draw(st.sampled_from(WITH_SPLITS if has_splits else WITHOUT))
    if template.endswith("_{c}"):
        classes = [name.replace("_", "-").replace(".", "-") for name in classes]
    form: Literal["NFC", "NFD"] = draw(st.sampled_from(("NFC", "NFD")))
    suffix = draw(st.sampled_from([".jpg", ".PNG", ".jfif", ""]))
    wrapper = draw(st.sampled_from(["", "animals/", "archive/animals/", "data/"]))
    is_listed = draw(st.booleans())
    files: dict[str, tuple[str, str | None]] = {}
    for split in splits:
        folder = draw(st.sampled_from(SPELLINGS[split])) if split else ""
        for index, name in enumerate(classes):
            for number in range(draw(st.integers(3, 4) if is_plain else st.integers(1, 4))):
                unique = f"{split or ''}{index}x{number}"
                path = template.format(w=wrapper, s=folder, c=name, n=number, u=unique)
                label = unicodedata.normalize("NFC", name)
                files[unicodedata.normalize(form, path + suffix)] = (label, split)
    packing = draw(st.sampled_from(["folder", "zip", "tar.gz"]))
    return Tree(files, packing, is_listed, is_plain)


def write(tree: Tree, root: Path) -> Path:
    for name in tree.files:
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "in" / name).write_bytes(PNG)
    (root / "in" / "notes.txt").write_text("drawn", encoding="utf-8")
    if tree.is_listed:
        rows = [f'"{name}",{label},{split or ""}' for name, (label, split) in tree.files.items()]
        text = "\n".join(["path,label,split", *rows])
        (root / "in" / "labels.csv").write_text(text, encoding="utf-8")
    if tree.packing == "folder":
        return root / "in"
    source = root / f"in.{tree.packing}"
    files = [path for path in (root / "in").rglob("*") if path.is_file()]
    if tree.packing == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(root / "in"))
    else:
        with tarfile.open(source, "w:gz") as packed:
            for path in files:
                packed.add(path, path.relative_to(root / "in"))
    return source


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(trees())
def test_random_data_set_is_read_exactly_or_rejected(tree: Tree) -> None:
    root = Path(tempfile.mkdtemp(prefix="layout-"))
    try:
        source = write(tree, root)
        manifests = [Path("labels.csv")] if tree.is_listed else []
        try:
            found = audit_source(source, Reading(manifests=manifests), quiet=True)
        except UserError:
            assert not tree.is_plain
            return
        images: dict[str, Labeled] = {image.name: image for image in found.images}
        assert {
            name: (image.class_name, image.split) for name, image in images.items()
        } == tree.files
        named = {finding.path for finding in found.findings}
        assert "notes.txt" in named
        assert tree.files.keys() <= images.keys() | named
    finally:
        shutil.rmtree(root)
