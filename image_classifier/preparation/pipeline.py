"""The whole way from a source to a prepared data set, and the audit that is a part of it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from container.classifier.errors import UserError
from container.training.data.channel import LabelledFile, class_names_of
from image_classifier.preparation import dataset, findings, labels, manifests, page, sources
from image_classifier.preparation import quarantine as aside
from image_classifier.preparation.audit import Audit, audit, copies_of
from image_classifier.preparation.findings import Finding
from image_classifier.preparation.labels import Labelled
from image_classifier.preparation.scan import Scan, scan


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How a source is to be read."""

    within: str = "."
    """The folder of it that holds the pictures."""

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

    Pictures that cannot be read are left out. The new folder appears when it is whole.

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
        message = f"{out} lies in {source}, where it would be taken for pictures: name another"
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
        pictures = [found.pictures[place] for place in readable]
        scanned = found.scan.of(readable)
        dataset.write(folder, pictures, scanned, staged, transfer, quiet=quiet)
        staged.chmod(0o755)
        staged.replace(out)
    return found


def look(
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
            remaining = {picture.name for picture in found.pictures}
            dataset.write_tables(folder, [row for row in rows if row.path in remaining])
        if page_path:
            page.write(page.render(found, folder, source.name), page_path)
    return found


def _read(folder: Path, reading: Reading, *, quiet: bool) -> Audit:
    """Find, label, group, read and judge a folder's pictures."""
    listing = sources.listed(folder)
    pictures, found = _labelled(folder, listing.pictures, reading)
    if reading.group:
        pattern = labels.compiled(reading.group, labels.GROUP_PATTERNS, "group")
        pictures = labels.grouped(pictures, pattern)
    class_names = [picture.class_name for picture in pictures]
    for name in class_names_of([LabelledFile(folder, name) for name in sorted(set(class_names))]):
        labels.check_class_name(name)
    scanned = scan(folder, [picture.name for picture in pictures], class_names, quiet=quiet)
    return _judge(pictures, scanned, [*listing.findings, *found])


def _labelled(
    folder: Path, names: Sequence[str], reading: Reading
) -> tuple[list[Labelled], list[Finding]]:
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


def _judge(pictures: list[Labelled], scanned: Scan, earlier: Sequence[Finding]) -> Audit:
    return audit(pictures, scanned, copies_of(scanned), earlier)


def _with_splits(found: Audit, shares: Mapping[str, float | None]) -> Audit:
    """Give every picture a split, and judge again what the splits decide."""
    pictures = dataset.planned(found.pictures, found.scan, found.copies, shares)
    return audit(pictures, found.scan, found.copies, found.earlier)


def _without_bad(found: Audit, folder: Path, fix: Path | None, transfer: aside.Transfer) -> Audit:
    """Put aside what is bad, and judge the rest."""
    chosen = aside.bad(found) if fix else {}
    if not fix or not chosen:
        return found
    aside.put(folder, chosen, fix, transfer)
    places = [place for place, item in enumerate(found.pictures) if item.name not in chosen]
    if not places:
        message = f"every picture was bad: all of them are in {fix} now"
        raise UserError(message)
    pictures = [found.pictures[place] for place in places]
    return _judge(pictures, found.scan.of(places), found.earlier)
