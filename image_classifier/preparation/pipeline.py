"""The whole way from a source to a prepared data set, and the audit that is a part of it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from container.classifier.channel import LabeledFile, class_names_of
from container.classifier.errors import UserError
from image_classifier.preparation import dataset, findings, labels, manifests, page, sources
from image_classifier.preparation import quarantine as aside
from image_classifier.preparation.audit import Audit, audit, copies_of
from image_classifier.preparation.findings import Finding
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.scan import Scan, scan


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How a source is to be read."""

    within: str = "."
    """The folder of it that holds the images."""

    label: str | None = None
    """A pattern with (?P<label>...), or a preset's name; None: folders, or ends of names."""

    group: str | None = None
    """A pattern with (?P<group>...), or a preset's name."""

    manifests: Sequence[Path] = ()
    """Counted from the source, else from here."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """What the manifests call `path`, `label`, `split` and `group`."""


def prepare(
    source: Path,
    out: Path,
    reading: Reading,
    shares: Mapping[str, float | None],
    *,
    fix: Path | None = None,
    quiet: bool = False,
) -> Audit:
    """Make a data set of a source, which stays as it is, and audit it.

    Images that cannot be read are left out. The new folder appears when it is whole.

    Args:
        source: A folder or an archive.
        out: A folder that is not there yet.
        reading: How the source is to be read.
        shares: Of `validation` and `test`; None: the usual.
        fix: Where to put a copy of what is bad, instead of into the data set.
        quiet: No progress bars.

    Raises:
        UserError: whatever is wrong with the source, the shares or the folders.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"{out} is there already: name a new folder, or remove it"
        raise UserError(message)
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        message = f"{out} lies in {source}, where it would be taken for images: name another"
        raise UserError(message)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix=".prepare-", dir=out.parent) as scratch,
        sources.opened(source, reading.within, Path(scratch), quiet=quiet) as folder,
    ):
        # What was unpacked is ours to move; anything else is copied.
        transfer = shutil.copyfile if source.is_dir() else shutil.move
        found = _with_splits(_read(folder, reading, quiet=quiet), shares)
        found = _without_bad(found, folder, fix, transfer)
        readable = [place for place, item in enumerate(found.scan.measured) if not item.problem]
        staged = Path(scratch, "staged")
        staged.mkdir()
        findings.write(found.findings, staged / dataset.FINDINGS)
        page_text = page.render(found, folder, out.name)
        page.write(page_text, staged / dataset.PAGE)
        images = [found.images[place] for place in readable]
        scanned = found.scan.of(readable)
        dataset.write(folder, images, scanned, staged, transfer, quiet=quiet)
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
        reading: How it is to be read.
        fix: Where to move what is bad, out of a folder; the audit is then of what remains.
        page_path: Where to write the page; None: nowhere.
        quiet: No progress bars.

    Raises:
        UserError: whatever is wrong with the source, or something is to be moved out of an archive.
    """
    if fix and not source.is_dir():
        message = f"{source} is an archive, which stays as it is: use `prepare --fix`"
        raise UserError(message)
    with sources.opened(source, reading.within, quiet=quiet) as folder:
        found = _without_bad(_read(folder, reading, quiet=quiet), folder, fix, shutil.move)
        if fix and (rows := dataset.read_manifest(folder)):
            remaining = {image.name for image in found.images}
            dataset.write_tables(folder, [row for row in rows if row.path in remaining])
        if page_path:
            page.write(page.render(found, folder, source.name), page_path)
    return found


def _read(folder: Path, reading: Reading, *, quiet: bool) -> Audit:
    """Find, label, group, read and judge a folder's images."""
    listing = sources.listed(folder)
    images, found = _labeled(folder, listing.images, reading)
    if reading.group:
        pattern = labels.compiled(reading.group, labels.GROUP_PATTERNS, "group")
        images = labels.grouped(images, pattern)
    class_names = [image.class_name for image in images]
    for name in class_names_of([LabeledFile(folder, name) for name in sorted(set(class_names))]):
        labels.check_class_name(name)
    scanned = scan(folder, [image.name for image in images], class_names, quiet=quiet)
    return _judge(images, scanned, [*listing.findings, *found])


def _labeled(
    folder: Path, names: Sequence[str], reading: Reading
) -> tuple[list[Labeled], list[Finding]]:
    pattern = None
    if reading.label:
        pattern = labels.compiled(reading.label, labels.LABEL_PATTERNS, "label")
    if not reading.manifests:
        if reading.columns:
            message = "--columns says what a manifest's columns are called: name it with --manifest"
            raise UserError(message)
        return labels.by_layout(names, pattern)
    if pattern:
        message = "--label and --manifest both say where labels are: leave one out"
        raise UserError(message)
    rows = {}
    for path in reading.manifests:
        inside = folder / path
        rows[path.name] = manifests.read(inside if inside.is_file() else path, reading.columns)
    return manifests.joined(rows, names)


def _judge(images: list[Labeled], scanned: Scan, earlier: Sequence[Finding]) -> Audit:
    return audit(images, scanned, copies_of(scanned), earlier)


def _with_splits(found: Audit, shares: Mapping[str, float | None]) -> Audit:
    """Give every image a split, and judge again what the splits decide."""
    images = dataset.planned(found.images, found.scan, found.copies, shares)
    return audit(images, found.scan, found.copies, found.earlier)


def _without_bad(found: Audit, folder: Path, fix: Path | None, transfer: aside.Transfer) -> Audit:
    """Put aside what is bad, and judge the rest."""
    chosen = aside.bad(found) if fix else {}
    if not fix or not chosen:
        return found
    aside.put(folder, chosen, fix, transfer)
    places = [place for place, item in enumerate(found.images) if item.name not in chosen]
    if not places:
        message = f"every image was bad: all of them are in {fix} now"
        raise UserError(message)
    images = [found.images[place] for place in places]
    return _judge(images, found.scan.of(places), found.earlier)
