"""Class, split and group of images."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from image_classifier.preparation import classes, manifests
from image_classifier.preparation.__main__ import main
from image_classifier.preparation.labels import (
    GROUP_PATTERNS,
    LABEL_PATTERNS,
    Labeled,
    add_groups,
    check_class_name,
    compile_pattern,
    label_by_layout,
)
from image_classifier.preparation.manifests import Row, label_by_manifests


def found(names: Sequence[str], label: str | None = None) -> list[tuple[str | None, str, str]]:
    pattern = compile_pattern(label, LABEL_PATTERNS, "label") if label else None
    images, _ = label_by_layout(names, pattern)
    return [(image.split, image.class_name, image.inner) for image in images]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ant/1.png", "bee/old/2.png"], [(None, "ant", "1.png"), (None, "bee", "old/2.png")]),
        (["x_3L.png", "y_3R.png"], [(None, "3L", "x_3L.png"), (None, "3R", "y_3R.png")]),
        (
            ["top/in/ant/1.png", "top/in/bee/1.png"],
            [(None, "ant", "1.png"), (None, "bee", "1.png")],
        ),
        (
            ["fingers/test/x_3L.png", "fingers/train/y_3R.png"],
            [("test", "3L", "x_3L.png"), ("train", "3R", "y_3R.png")],
        ),
        (
            ["h/train_another/damage/1.png", "h/validation_another/no_damage/1.png"],
            [("train", "damage", "1.png"), ("validation", "no_damage", "1.png")],
        ),
        (
            ["Training/ant/1.png", "valid/bee/1.png", "TEST/ant/2.png"],
            [("train", "ant", "1.png"), ("validation", "bee", "1.png"), ("test", "ant", "2.png")],
        ),
        # Two folders of one role are not mixed.
        (
            ["train/a/1.png", "test/a/1.png", "test_another/b/1.png", "val/b/1.png"],
            [
                ("train", "a", "1.png"),
                ("test", "a", "1.png"),
                ("test_another", "b", "1.png"),
                ("validation", "b", "1.png"),
            ],
        ),
        # Classes with the names of splits.
        (["valid/1.png", "invalid/2.png"], [(None, "valid", "1.png"), (None, "invalid", "2.png")]),
    ],
)
def test_folders_define_split_class_and_inner_path(
    names: list[str], expected: list[tuple[str | None, str, str]]
) -> None:
    assert found(names) == expected


@pytest.mark.parametrize(
    ("pattern", "names", "classes"),
    [
        (r"(?P<label>[0-5][LR])\.png$", ["a/b_3L.png", "c/d_0R.png"], ["3L", "0R"]),
        ("fingers", ["train/b_3L.png", "train/d_0R.png"], ["3L", "0R"]),
        (
            "name-number",
            ["great_dane_12.jpg", "pug (3).jpg", "cat.7.jpg"],
            ["great_dane", "pug", "cat"],
        ),
        (r"^(?P<label>[^/]+)/", ["ant/1.png", "bee/2.png"], ["ant", "bee"]),
    ],
)
def test_label_is_found_by_a_pattern_or_a_preset(
    pattern: str, names: list[str], classes: list[str]
) -> None:
    assert [name for _, name, _ in found(names, pattern)] == classes


def test_image_without_a_label_is_a_finding() -> None:
    images, findings = label_by_layout(
        ["a_3L.png", "b.png"], compile_pattern("fingers", LABEL_PATTERNS, "label")
    )

    assert [image.name for image in images] == ["a_3L.png"]
    assert [(item.kind, item.path) for item in findings] == [("unlabeled", "b.png")]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["ant/1.png", "2_bee.png"], "both class folders and loose images such as 2_bee.png"),
        (["train/a/1.png", "train/2_b.png"], "loose images such as train/2_b.png"),
        (["train/a/1.png", "other/a/1.png"], "train looks like a split, but other is next to it"),
        (["train/a/1.png", "x_b.png"], "but x_b.png is next to it"),
        (["IMG_1.png", "IMG_2.png", "IMG_3.png"], "every image has a different label"),
        (["a.png", "b.png"], "no image has a label, for example a.png"),
    ],
)
def test_ambiguous_or_unknown_layout_is_rejected(names: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        label_by_layout(names)


@pytest.mark.parametrize(
    ("pattern", "words"), [("(", "is not a regular expression"), ("x", "has no group .*fingers")]
)
def test_invalid_pattern_is_rejected(pattern: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        compile_pattern(pattern, LABEL_PATTERNS, "label")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "__MACOSX", "x" * 300])
def test_class_name_that_cannot_be_a_folder_is_rejected(name: str) -> None:
    with pytest.raises(UserError, match="cannot be a folder's name"):
        check_class_name(name)


def test_pattern_finds_groups() -> None:
    names = ["damage/-95.1_29.5.jpeg", "no_damage/-95.1_29.5.jpeg", "damage/x.jpeg"]
    images, _ = label_by_layout(names)

    groups = add_groups(images, compile_pattern("coordinates", GROUP_PATTERNS, "group"))

    assert [image.group for image in groups] == ["-95.1_29.5", "-95.1_29.5", None]
    with pytest.raises(UserError, match="matches no path"):
        add_groups(images, compile_pattern("(?P<group>patient)", GROUP_PATTERNS, "group"))


def read(tmp_path: Path, name: str, text: str, **columns: str) -> list[Row]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    rows, _ = manifests.read(tmp_path / name, columns)
    return rows


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,label\nx/1.png,ant\n2.png,bee\n"),
        ("a.csv", "\ufeffFilename;Class\nx/1.png;ant\n2.png;bee\n"),
        ("a.tsv", "id\tbreed\textra\nx/1.png\tant\t\n2.png\tbee\t7\n"),
        ("a.csv", "ImageId,ClassName\nx/1.png,ant\n2.png,bee\n"),
        ("a.csv", "class index,filepaths,labels\n0,x/1.png,ant\n1,2.png,bee\n"),
        ("a.csv", "Image|Class\nx/1.png|ant\n2.png|bee\n"),
        ("a.csv", "x/1.png|ant\n2.png|bee\n"),
        ("a.csv", 'SEP=;\n"path"; "label"\n"x/1.png"; "ant"\n"2.png"; "bee"\n'),
        ("a.lst", "0 ant x/1.png\n5   bee  2.png\n"),
        ("a.json", '{"path": ["x/1.png", "2.png"], "label": ["ant", "bee"]}'),
        (
            "a.json",
            (
                '{"schema": {}, "data": [{"path": "x/1.png", "label": "ant"},'
                '{"path": "2.png", "label": "bee"}]}'
            ),
        ),
        ("a.json", '{"path": {"0": "x/1.png", "1": "2.png"}, "label": {"0": "ant", "1": "bee"}}'),
        (
            "a.json",
            (
                '{"info": {}, "categories": [{"id": 3, "name": "ant"}, {"id": 4, "name": "bee"}],'
                '"images": [{"id": 7, "file_name": "x/1.png"}, {"id": 8, "file_name": "2.png"}],'
                '"annotations": [{"id": 1, "image_id": 7, "category_id": 3},'
                '{"id": 2, "image_id": 8, "category_id": 4}]}'
            ),
        ),
        ("a.jsonl", '{"path": "x/1.png", "label": "ant"}\n\n{"path": "2.png", "label": "bee"}\n'),
        (
            "a.manifest",
            (
                '{"source-ref": "x/1.png", "kind": 0, "kind-metadata": {"class-name": "ant"}}\n'
                '{"source-ref": "2.png", "kind": 1, "kind-metadata": {"class-name": "bee"}}\n'
            ),
        ),
        (
            "a.manifest",
            (
                '{"source-ref": "x/1.png", "k": 0, "k-metadata": {"class-name": "ant"}, "w": 9}\n'
                '{"source-ref": "2.png", "k": 1, "k-metadata": {"class-name": "bee"}, "w": 9}\n'
            ),
        ),
    ],
)
def test_every_manifest_format_is_read(tmp_path: Path, name: str, text: str) -> None:
    assert read(tmp_path, name, text) == [Row("x/1.png", "ant"), Row("2.png", "bee")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_byte_order_marks_are_no_part_of_a_name(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_text("path,label\n1.png,Öl\n", encoding)

    for given in (None, encoding.removesuffix("-sig")):
        assert manifests.read(tmp_path / "a.csv", {}, given)[0] == [Row("1.png", "Öl")]


def test_manifest_whose_files_of_a_class_are_missing_is_rejected() -> None:
    rows = {"a.csv": [Row("0001", "ant"), Row("2", "bee")]}

    with pytest.raises(UserError, match=r"except those of 'ant' .* for example 2: a\.csv"):
        label_by_manifests(rows, ["0001.png", "0002.png"])


def test_numeric_labels_of_lst_and_augmented_manifests_are_read(tmp_path: Path) -> None:
    lst = read(tmp_path, "a.lst", "0\t1\tx/1.png\n5\t10.000000\t2.png\n")
    augmented = read(tmp_path, "a.manifest", '{"source-ref": "s3://b/x/1.png", "class": 3}\n')

    assert lst == [Row("x/1.png", "1"), Row("2.png", "10")]
    assert augmented == [Row("s3://b/x/1.png", "3")]


def test_named_columns_give_path_label_split_and_group(tmp_path: Path) -> None:
    text = "scan,finding,fold,patient\n1.png,ill,val,p1\n"
    columns = {"path": "scan", "label": "finding", "split": "fold", "group": "patient"}

    assert read(tmp_path, "a.csv", text, **columns) == [Row("1.png", "ill", "validation", "p1")]


@pytest.mark.parametrize(
    ("names", "values", "splits"),
    [
        ("is_train", ["1", "0"], ["train", "test"]),
        ("is-valid", ["False", "True"], ["train", "validation"]),
        ("isTest", ["no", "yes"], ["train", "test"]),
        ("is_train,is_val", ["0,1", "1,0", "0,0"], ["validation", "train", "test"]),
        ("fold", ["train", "val", "test"], ["train", "validation", "test"]),
        ("Usage", ["Training", "PublicTest"], ["train", "test"]),
        ("data set", ["train", ""], ["train", None]),
        ("subset,is_train", ["train,1", "val,0"], ["train", "validation"]),
        ("split,set", ["train,A", "test,B"], ["train", "test"]),
    ],
)
def test_columns_with_other_names_or_flags_give_the_split(
    tmp_path: Path, names: str, values: list[str], splits: list[str | None]
) -> None:
    lines = [f"{number}.png,ant,{value}\n" for number, value in enumerate(values)]

    rows = read(tmp_path, "a.csv", f"path,label,{names}\n" + "".join(lines))

    assert [row.split for row in rows] == splits


def test_a_column_that_could_be_the_split_and_is_not_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,ant,bee,fold,is_valid\n1.png,1,0,0,1\n2.png,0,1,3,1\n")

    rows, findings = manifests.read(tmp_path / "a.csv", {})

    assert rows == [Row("1.png", "ant"), Row("2.png", "bee")]
    assert [(item.kind, item.path) for item in findings] == [("unused-column", None)] * 2
    assert "values of 'fold' such as '3' are not splits" in findings[0].detail


def test_true_and_false_mark_the_column_of_the_class(tmp_path: Path) -> None:
    text = "path,ant,bee\n1.png,True,False\n2.png,False,True\n"

    assert read(tmp_path, "a.csv", text) == [Row("1.png", "ant"), Row("2.png", "bee")]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.csv",
            "x,y\n1.png,ant\n",
            "no column with a usual name for the path: it has x, y;",
        ),
        ("a.csv", "path,label\n", "lists no images"),
        ("a.csv", "\n", "lists no images"),
        ("a.csv", "path,label\n1.png,\n", "row 2 has no path or no label"),
        ("a.csv", "path,label\n1.png,NaN\n", "row 2 has no path or no label"),
        ("a.csv", "path,label,split\n1.png,ant,fold3\n", "'fold3' is not a split"),
        ("a.csv", "path,label,split\n1.png,ant,predict\n", "'predict' is not a split"),
        ("a.csv", "path,label,fold\n1.png,a,train\n2.png,a,tets\n", "row 3: 'tets' is not a split"),
        (
            "a.csv",
            "path,label,fold,is_train\n1.png,a,train,1\n2.png,a,test,1\n3.png,a,test,0\n",
            "row 3: fold is test, and is_train is 1: choose a column with --columns split=NAME",
        ),
        (
            "a.csv",
            "path,label,is_train,is_test\n1.png,a,1,0\n2.png,a,1,1\n3.png,a,0,1\n",
            "row 3: exactly one of is_train, is_test must be 1, got 2",
        ),
        ("a.csv", "path,label,label\n1.png,ant,bee\n", "row 2: the column 'label' exists twice"),
        ("a.csv", "path,label\n1.png,ant,bee\n", "row 2 has more cells than the 2 columns"),
        ("a.jsonl", '{"path": "1.png", "label": NaN}\n', "row 1 has no path or no label"),
        ("a.csv", 'path,label\n"1.png,ant\n', "is not a valid CSV file"),
        ("a.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("a.jsonl", "{\n", "line 1 is not JSON: "),
        ("a.jsonl", "[" * 100_000, "line 1 is not JSON: "),
        (
            "a.lst",
            "0\t1\t2\tx.png\n",
            "line 1: expected an index, the number of one class",
        ),
        ("a.xml", "x", "is not a manifest: expected .csv"),
    ],
)
def test_invalid_manifest_is_rejected(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(tmp_path, name, text)


def test_missing_binary_or_misnamed_manifest_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"path,label\n\xff\xfe,x\n")

    with pytest.raises(UserError, match="is not UTF-8"):
        manifests.read(tmp_path / "a.csv", {})
    with pytest.raises(FileNotFoundError):
        manifests.read(tmp_path / "b.csv", {})
    with pytest.raises(UserError, match="has no column 'kind': it has path, label"):
        read(tmp_path, "c.csv", "path,label\nx,y\n", label="kind")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("train/1.png", "train/1.png"),
        ("s3://bucket/some/prefix/train/1.png", "train/1.png"),
        ("./train/1.png", "train/1.png"),
        ("train\\1.png", "train/1.png"),
        ("only.png", "deep/only.png"),
        ("only", "deep/only.png"),
        ("deep/only", "deep/only.png"),
        ("../../train/1.png", "train/1.png"),
        ("1.png", None),
        ("none.png", None),
        ("", None),
    ],
)
def test_reference_finds_only_its_file(reference: str, expected: str | None) -> None:
    names = ["deep/only.png", "test/1.png", "train/1.png"]
    rows = {"a.csv": [Row("deep/only.png", "x"), Row(reference, "x")]}

    images, findings = label_by_manifests(rows, names)

    kinds = {"missing-file", "ambiguous-file"}
    missing = [item.path for item in findings if item.kind in kinds]
    assert missing == ([] if expected else [reference])
    assert {image.name for image in images} == {"deep/only.png", expected or "deep/only.png"}


def test_paths_can_be_relative_to_the_manifest_whose_folder_is_the_split() -> None:
    rows = {f"{split}/metadata.jsonl": [Row("1.png", split)] for split in ("train", "valid")}

    images, findings = label_by_manifests(rows, ["train/1.png", "valid/1.png"])

    assert [(image.name, image.class_name, image.split) for image in images] == [
        ("train/1.png", "train", "train"),
        ("valid/1.png", "valid", "validation"),
    ]
    assert not findings


def test_names_of_several_manifests_are_splits() -> None:
    rows = {"train.lst": [Row("1.png", "0")], "val.lst": [Row("2.png", "1")]}

    images, findings = label_by_manifests(rows, ["1.png", "2.png", "3.png"])

    assert images == [
        Labeled("1.png", "0", "1.png", "train"),
        Labeled("2.png", "1", "2.png", "validation"),
    ]
    assert [(item.kind, item.path) for item in findings] == [("unlabeled", "3.png")]


def test_contradicting_rows_are_rejected() -> None:
    with pytest.raises(UserError, match=r"has contradicting rows for 1\.png"):
        label_by_manifests({"a.csv": [Row("1.png", "ant"), Row("1.png", "bee")]}, ["1.png"])
    with pytest.raises(UserError, match=r"no image that a\.csv lists exists"):
        label_by_manifests({"a.csv": [Row("2.png", "ant")]}, ["1.png"])
    rows = {"a.csv": [Row("1.png", "ant", "train"), Row("2.png", "bee")]}
    with pytest.raises(UserError, match="some images have a split and others do not"):
        label_by_manifests(rows, ["1.png", "2.png"])


def test_json_lines_with_other_types_and_keys_are_read(tmp_path: Path) -> None:
    line = json.dumps({"image": "ä.png", "label": 7, "more": [1], "split": None})

    assert read(tmp_path, "a.jsonl", line) == [Row("ä.png", "7")]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", '{"cat": 0, "dog": 0, "bird": 1}', "the label '0' two names, 'cat' and 'dog'"),
        ("a.csv", "0,cat\n0,dog\n", "the label '0' two names, 'cat' and 'dog'"),
        ("a.json", '{"0": "cat", "0": "dog"}', "has '0' twice, with 'cat' and 'dog'"),
        ("a.json", '{"0": null, "1": "dog"}', "has 'None' as a label or name: expected text"),
        ("a.yaml", "names:\n  0: cat\n  1: dog\n", "is not a list of names of classes: expected"),
        ("a.json", '[["a", "b", ["c"]], "dog"]', "as a label or name: expected text"),
    ],
)
def test_contradicting_or_nested_names_of_classes_are_rejected(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(UserError, match=words):
        classes.read(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        '{"0": {"name": "cat"}, "1": {"name": "dog"}}',
        '[[0, "cat"], [1, "dog"]]',
        '{"id2label": {"0": "cat", "1": "dog"}, "model_type": "vit"}',
        '{"0": ["n1", "cat"], "1": ["n2", "dog"]}',
    ],
)
def test_names_of_classes_are_found_in_usual_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")

    assert classes.read(tmp_path / "a.json") == {"0": "cat", "1": "dog"}


def test_labels_that_differ_in_zeros_do_not_merge() -> None:
    images = [Labeled(f"{label}/1.png", label, "1.png") for label in ("1", "01", "2")]

    with pytest.raises(UserError, match="gives the labels '01' and '1' one name, 'a'"):
        classes.rename(images, {"1": "a", "2": "b"})


@pytest.mark.parametrize("encoding", ["klingon", "base64"])
def test_unknown_encoding_is_rejected(encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", "in", "out", "--encoding", encoding])

    assert f"unknown encoding '{encoding}'" in capsys.readouterr().err
