"""The steps from a source to a prepared data set, and the audit among them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from container.classifier.errors import UserError
from container.classifier.labeled_images import LabeledFile, class_names_of
from image_classifier.preparation import dataset, findings, labels, manifests, page
from image_classifier.preparation.audit import Audit, audit, find_copies
from image_classifier.preparation.findings import Finding
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.quarantine import move_bad_images
from image_classifier.preparation.scan import Scan, scan
from image_classifier.preparation.sources import list_images, open_source
from image_classifier.preparation.split import plan_splits


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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: use a new folder, or remove it")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out} is in {source} and would be read as images: use another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix=".prepare-", dir=out.parent) as scratch,
        open_source(source, reading.within, Path(scratch), quiet=quiet) as folder,
    ):
        # Unpacked files can be moved, those of a folder are copied.
        transfer = shutil.copyfile if source.is_dir() else shutil.move
        images, scanned, left_out = _read(folder, reading, quiet=quiet)
        copies = find_copies(scanned)
        images = plan_splits(images, scanned, copies, shares)
        found = audit(images, scanned, copies, left_out)
        if fix:
            found = move_bad_images(found, folder, fix, transfer)
        staged = Path(scratch, "staged")
        staged.mkdir()
        findings.write(found.findings, staged / dataset.FINDINGS)
        page.write(found, folder, staged / dataset.PAGE, title=out.name, source=source)
        dataset.write(folder, found.images, found.scan, staged, transfer, quiet=quiet)
        staged.chmod(0o755)
        staged.replace(out)
    return found


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
    with open_source(source, reading.within, quiet=quiet) as folder:
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
    paths, left_out = list_images(folder)
    images, unlabeled = _label(folder, paths, reading)
    if reading.group:
        pattern = labels.compile_pattern(reading.group, labels.GROUP_PATTERNS, "group")
        images = labels.add_groups(images, pattern)
    for name in class_names_of([LabeledFile(folder, image.class_name) for image in images]):
        labels.check_class_name(name)
    return images, scan(folder, images, quiet=quiet), [*left_out, *unlabeled]


def _label(
    folder: Path, names: Sequence[str], reading: Reading
) -> tuple[list[Labeled], list[Finding]]:
    if reading.label and reading.manifests:
        raise UserError("--label and --manifest both define labels: omit one")
    if reading.manifests:
        rows = {}
        for path in reading.manifests:
            in_source = folder / path
            chosen = in_source if in_source.is_file() else path
            rows[path.name] = manifests.read(chosen, reading.columns)
        return manifests.label_by_manifests(rows, names)
    if reading.columns:
        raise UserError(
            "--columns names the columns of a manifest: name the manifest with --manifest"
        )
    pattern = None
    if reading.label:
        pattern = labels.compile_pattern(reading.label, labels.LABEL_PATTERNS, "label")
    return labels.label_by_layout(names, pattern)
