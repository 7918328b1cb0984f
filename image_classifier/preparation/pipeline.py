"""The steps from a source to a prepared data set, and the audit among them."""

import shutil
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from container.classifier.errors import UserError
from container.classifier.image_files import LOST
from container.classifier.labeled_images import (
    LabeledFile,
    check_splits,
    class_names_of,
)
from container.classifier.lost_files import check_folders
from image_classifier.preparation import classes, dataset, findings, labels, manifests, page
from image_classifier.preparation.audit import Audit, audit, find_copies
from image_classifier.preparation.findings import Finding
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.network_features import network_features
from image_classifier.preparation.quarantine import choose, move_bad_images
from image_classifier.preparation.scan import Scan, scan
from image_classifier.preparation.scratch import scratch_folder
from image_classifier.preparation.sources import list_images, open_source
from image_classifier.preparation.split import plan_splits

# Files that can be manifests.
TABLES = (".csv", ".tsv", ".lst", ".jsonl", ".manifest")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How to read a source."""

    within: str = "."
    """The folder in the source that contains the images."""

    label: str | None = None
    """A pattern with (?P<label>...), or a preset's name; None: folders, or ends of names."""

    group: str | None = None
    """A pattern with (?P<group>...), or a preset's name."""

    manifests: Sequence[Path] = ()
    """Relative to the source, or else to the working directory."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """The manifests' names of `path`, `label`, `split` and `group`."""

    classes: Path | None = None
    """A file with the names of the labels; where `manifests` are searched."""

    has_splits: bool = True
    """Whether folders can be splits."""

    encoding: str | None = None
    """Of names in archives, and of manifests, that are not UTF-8."""

    weights: Path | None = None
    """Of a pretrained network, by whose features labels are checked; None: simple features."""

    network: str = "resnet18"
    """The network of the weights."""


def prepare(
    source: Path,
    out: Path,
    reading: Reading,
    shares: Mapping[str, float | None],
    *,
    fix: Path | None = None,
    quiet: bool = False,
) -> Audit:
    """Make a data set of a source, which is not changed, and audit it.

    Leaves out images that cannot be decoded. The new folder appears when it is complete.

    Args:
        source: A folder or an archive.
        out: A new or empty folder.
        reading: How to read the source.
        shares: Of `validation` and `test`; None: the default.
        fix: Where to put a copy of bad images, which are left out of the data set.
        quiet: No progress bars.

    Raises:
        UserError: the source, the shares or the folders cannot be used.
    """
    _require_unused(out)
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out} is in {source} and would be read as images: use another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        scratch_folder(out.parent) as scratch,
        open_source(
            source, reading.within, scratch, encoding=reading.encoding, quiet=quiet
        ) as folder,
    ):
        # Unpacked files can be moved, those of a folder are copied.
        transfer = shutil.copyfile if source.is_dir() else shutil.move
        images, scanned, left_out = _read(folder, reading, quiet=quiet)
        copies = find_copies(scanned)
        images = plan_splits(images, scanned, copies, shares)
        check_trainable(images, scanned)
        found = audit(images, scanned, copies, left_out)
        if fix:
            check_trainable(images, scanned, choose(found))
            found = move_bad_images(found, folder, fix, transfer)
        staged = scratch / "staged"
        staged.mkdir()
        findings.write(found.findings, staged / dataset.FINDINGS)
        page.write(found, folder, staged / dataset.PAGE, title=out.name, source=source)
        dataset.write(folder, found.images, found.scan, staged, transfer, quiet=quiet)
        staged.chmod(0o755)
        try:
            staged.replace(out)
        except OSError:
            # Another run made the folder in the meantime.
            _require_unused(out)
            raise
    return found


def _require_unused(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: use a new folder, or remove it")


def audit_source(
    source: Path,
    reading: Reading,
    *,
    fix: Path | None = None,
    page_path: Path | None = None,
    quiet: bool = False,
) -> Audit:
    """Audit a source as it is.

    Args:
        source: A folder or an archive.
        reading: How to read it.
        fix: Where to move bad images of a folder; the audit is then of the remaining images.
        page_path: Where to write the HTML page; None: no page.
        quiet: No progress bars.

    Raises:
        UserError: the source cannot be used, or `fix` is given for an archive.
    """
    if fix and not source.is_dir():
        raise UserError(f"{source} is an archive, which is not changed: use `prepare --fix`")
    with open_source(source, reading.within, encoding=reading.encoding, quiet=quiet) as folder:
        images, scanned, left_out = _read(folder, reading, quiet=quiet)
        found = audit(images, scanned, find_copies(scanned), left_out)
        if fix:
            found = move_bad_images(found, folder, fix, shutil.move)
            remaining = {image.name for image in found.images}
            if rows := dataset.read_manifest(folder):
                dataset.write_tables(folder, [row for row in rows if row.path in remaining])
        if page_path:
            page.write(found, folder, page_path, title=source.name, source=source)
    return found


def _read(
    folder: Path, reading: Reading, *, quiet: bool
) -> tuple[list[Labeled], Scan, list[Finding]]:
    """Find, label, group and scan a folder's images; return findings about other files too."""
    counts = [path.name for path in folder.glob(dataset.TABLES)]
    own = (dataset.MANIFEST, dataset.FINDINGS, dataset.PAGE, *counts)
    files = [*reading.manifests, *([reading.classes] if reading.classes else [])]
    used = [str(path) for path in (*own, *files)]
    paths, left_out = list_images(folder, used)
    if not reading.manifests:
        lost = [(item.path or "", item.detail) for item in left_out if item.kind in LOST]
        check_folders(Path(), paths, lost)
    try:
        images, unlabeled = _label(folder, paths, reading)
    except UserError as error:
        tables = [item.path for item in left_out if item.path and item.path.endswith(TABLES)]
        if reading.manifests or not tables:
            raise
        raise UserError(
            f"{error}; the source contains {tables[0]}: --manifest {tables[0]} reads labels of it"
        ) from error
    if reading.classes:
        names = classes.read(_in_source(folder, reading.classes), reading.encoding)
        images = classes.rename(images, names)
    if reading.group:
        pattern = labels.compile_pattern(reading.group, labels.GROUP_PATTERNS, "group")
        images = labels.add_groups(images, pattern)
    for name in class_names_of([LabeledFile(folder, image.class_name) for image in images]):
        labels.check_class_name(name)
    scanned = scan(folder, images, quiet=quiet)
    if reading.weights:
        found = network_features(
            folder, images, scanned, reading.network, reading.weights, quiet=quiet
        )
        scanned = replace(scanned, network_features=found)
    return images, scanned, [*left_out, *unlabeled]


def _in_source(folder: Path, path: Path) -> Path:
    """Return a file in the source, or else in the working directory."""
    return folder / path if (folder / path).is_file() else path


def _label(
    folder: Path, names: Sequence[str], reading: Reading
) -> tuple[list[Labeled], list[Finding]]:
    if reading.label and reading.manifests:
        raise UserError("--label and --manifest both define labels: omit one")
    if reading.manifests:
        read = {
            str(path): manifests.read(_in_source(folder, path), reading.columns, reading.encoding)
            for path in reading.manifests
        }
        rows = {name: found for name, (found, _) in read.items()}
        unused = [finding for _, findings in read.values() for finding in findings]
        images, found = manifests.label_by_manifests(rows, names, has_splits=reading.has_splits)
        return images, [*unused, *found]
    if reading.columns:
        raise UserError(
            "--columns names the columns of a manifest: name the manifest with --manifest"
        )
    pattern = None
    if reading.label:
        pattern = labels.compile_pattern(reading.label, labels.LABEL_PATTERNS, "label")
    return labels.label_by_layout(names, pattern, has_splits=reading.has_splits)


def check_trainable(images: Sequence[Labeled], scanned: Scan, bad: Collection[str] = ()) -> None:
    """Check that the training program accepts the images that can be read and are not `bad`.

    Raises:
        UserError: it would not.
    """
    splits: dict[str, list[LabeledFile]] = defaultdict(list)
    contents: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for image, item in zip(images, scanned.measured, strict=True):
        if not item.problem and image.name not in bad:
            split = image.split or "train"
            splits[split].append(LabeledFile(Path(image.name), image.class_name))
            contents[split].append((image.class_name, item.sha256))
    readable = {file.class_name for files in splits.values() for file in files}
    if lost := [name for name in labels.class_names(images) if name not in readable]:
        name = f"image of the class {lost[0]!r}"
        problem = f"--fix leaves no {name}" if bad else f"no {name} can be read"
        raise UserError(f"{problem}: remove or replace them")
    check_splits(splits)
    for name in ("validation", "test"):
        if name in contents and sorted(contents[name]) == sorted(contents["train"]):
            raise UserError(f"the {name} split holds the images of training: use other images")
