"""Renders an HTML page about a data set, without scripts and external files."""

import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from container.classifier.errors import ImageError
from container.classifier.preprocessing import decode_image
from container.classifier.report_page import data_uri, template
from image_classifier.preparation.audit import Audit
from image_classifier.preparation.conversion import convert
from image_classifier.preparation.findings import KINDS, Finding

TEMPLATE = Path(__file__).with_name("page.html.jinja")

THUMBNAIL_SIZE = 96
SAMPLES = 8

# With a thousand classes the page would be too long.
MAX_CLASSES = 60

# Rows of the table of classes that are visible at once.
MAX_ROWS = 40

# Findings of one kind that are listed, and that are shown with images.
MAX_LISTED, MAX_SHOWN = 200, 12
MAX_IMAGES_PER_FINDING = 4

BINS = 24


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram."""

    label: str
    count: int
    height: float
    """As a fraction of the highest bar."""


def write(audit: Audit, folder: Path, path: Path, *, title: str, source: Path) -> None:
    """Render the page and write it to a file; `source` is the folder or archive of the images."""
    # File names can contain bytes that are not UTF-8.
    path.write_text(
        render(audit, folder, title, source), encoding="utf-8", errors="backslashreplace"
    )


def render(audit: Audit, folder: Path, title: str, source: Path) -> str:
    """Return the page about a data set, whose images are in `folder`."""
    shown = audit.class_names[:MAX_CLASSES]
    readable = [item for item in audit.scan.measured if not item.problem]
    return template(TEMPLATE, thumbnail=lambda name: _thumbnail(folder / name)).render(
        facts={"Project": title, "Data": source},
        name=title,
        audit=audit,
        kinds=KINDS,
        counts=audit.counts,
        number=len(readable),
        class_names=shown,
        averages={name: _data_uri(Image.fromarray(audit.scan.averages[name])) for name in shown},
        samples={name: _samples(audit, name) for name in shown},
        images={image.name: image for image in audit.images},
        findings=_findings(audit),
        widths=histogram([item.width for item in readable]),
        heights=histogram([item.height for item in readable]),
        brightness=histogram([item.brightness for item in readable], (0, 256)),
        formats=Counter(f"{item.format} {item.mode}" for item in readable).most_common(),
        megabytes=sum(item.size_bytes for item in audit.scan.measured) / 1e6,
        max_listed=MAX_LISTED,
        max_rows=MAX_ROWS,
    )


def histogram(values: Sequence[float], limits: tuple[float, float] | None = None) -> list[Bar]:
    """Return the bars of a histogram; a single one if all values are equal."""
    if not values:
        return []
    low, high = limits or (min(values), max(values))
    if low == high:
        return [Bar(f"{low:g}", len(values), 1.0)]
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    return [
        Bar(f"{start:.0f} to {end:.0f}", int(count), float(count / counts.max()))
        for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True)
    ]


def _samples(audit: Audit, class_name: str) -> list[str]:
    """Return the paths of images of a class, evenly spaced."""
    names = [
        image.name
        for image, item in zip(audit.images, audit.scan.measured, strict=True)
        if image.class_name == class_name and not item.problem
    ]
    step = max(len(names) // SAMPLES, 1)
    return names[::step][:SAMPLES]


def _findings(audit: Audit) -> dict[str, list[tuple[Finding, list[str]]]]:
    """Return the listed findings by kind, each with the paths of the images to show."""
    known = {image.name for image in audit.images}
    found: dict[str, list[tuple[Finding, list[str]]]] = defaultdict(list)
    for finding in audit.findings:
        listed = found[finding.kind]
        if len(listed) < MAX_LISTED:
            names = [name for name in (finding.path, *finding.others) if name in known]
            count = MAX_IMAGES_PER_FINDING if len(listed) < MAX_SHOWN else 0
            listed.append((finding, names[:count]))
    return found


def _thumbnail(path: Path) -> str:
    """Return the data URI of a small copy of an image; empty if the image cannot be read."""
    try:
        image = decode_image(convert(path.read_bytes()).data)
    except (ImageError, OSError):
        return ""
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), reducing_gap=2.0)
    return _data_uri(image)


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return data_uri(file.getvalue(), "jpeg")
