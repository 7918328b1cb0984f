"""The look: one HTML page about a data set, which needs no other file and no network."""

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from container.classifier.errors import ImageError
from container.classifier.preprocessing import Pixels, decode_image
from image_classifier.preparation.audit import Audit
from image_classifier.preparation.findings import KINDS, Finding

THUMBNAIL_SIZE = 96
SAMPLES = 8

# Of a thousand classes the page would be too long to look at.
MAX_CLASSES = 60

# Of findings of one kind: named, and shown with images.
MAX_NAMED, MAX_SHOWN = 200, 12
MAX_IMAGES_OF_ONE = 4

BINS = 24


@dataclass(frozen=True, slots=True)
class Bar:
    """One of a histogram's."""

    label: str
    count: int
    height: float
    """As a share of the highest."""


def write(text: str, path: Path) -> None:
    """Write the page; names of files need not be text."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def render(audit: Audit, folder: Path, title: str) -> str:
    """Return the page about a data set.

    Args:
        audit: What is known of it.
        folder: Where its images lie.
        title: What it is called.
    """
    environment = Environment(
        loader=PackageLoader("image_classifier.preparation", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    shown = audit.class_names[:MAX_CLASSES]
    readable = [item for item in audit.scan.measured if not item.problem]
    return environment.get_template("page.html.jinja").render(
        title=title,
        audit=audit,
        kinds=KINDS,
        counts=_counts(audit),
        class_names=shown,
        averages={name: _data_uri(audit.scan.averages[name]) for name in shown},
        samples={name: _samples(audit, folder, name) for name in shown},
        findings=_findings(audit, folder),
        widths=histogram([item.width for item in readable]),
        heights=histogram([item.height for item in readable]),
        brightness=histogram([item.brightness for item in readable], (0, 256)),
        formats=Counter(f"{item.format} {item.mode}" for item in readable).most_common(),
        megabytes=sum(item.size_bytes for item in audit.scan.measured) / 1e6,
        max_named=MAX_NAMED,
    )


def histogram(values: Sequence[float], limits: tuple[float, float] | None = None) -> list[Bar]:
    """Return the bars of a histogram; one where all values are equal."""
    if not values:
        return []
    low, high = limits or (min(values), max(values))
    if low == high:
        return [Bar(f"{low:g}", len(values), 1.0)]
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    shares = counts / counts.max()
    return [
        Bar(f"{edges[place]:.0f} to {edges[place + 1]:.0f}", int(count), float(shares[place]))
        for place, count in enumerate(counts)
    ]


def _counts(audit: Audit) -> Mapping[str, Mapping[str, int]]:
    """Return the images of each split by class."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in audit.splits}
    for image in audit.images:
        counts[image.split or "all"][image.class_name] += 1
    return counts


def _samples(audit: Audit, folder: Path, class_name: str) -> list[dict[str, str]]:
    """Return a class's images, spread over all of it."""
    names = [
        image.name
        for image, item in zip(audit.images, audit.scan.measured, strict=True)
        if image.class_name == class_name and not item.problem
    ]
    step = max(len(names) // SAMPLES, 1)
    return [_figure(folder, name) for name in names[::step][:SAMPLES]]


def _findings(audit: Audit, folder: Path) -> dict[str, list[dict[str, object]]]:
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in audit.findings:
        by_kind[finding.kind].append(finding)
    class_of = {image.name: image for image in audit.images}
    found: dict[str, list[dict[str, object]]] = {}
    for kind, items in by_kind.items():
        found[kind] = []
        for number, item in enumerate(items[:MAX_NAMED]):
            names = [name for name in (item.path, *item.others) if name in class_of]
            shown = names[:MAX_IMAGES_OF_ONE] if number < MAX_SHOWN else []
            figures = [
                {
                    **_figure(folder, name),
                    "class_name": class_of[name].class_name,
                    "split": class_of[name].split or "",
                }
                for name in shown
            ]
            found[kind].append({"finding": item, "figures": figures})
    return found


def _figure(folder: Path, name: str) -> dict[str, str]:
    """Return an image's path and itself; without itself where it cannot be read."""
    try:
        image = decode_image((folder / name).read_bytes())
    except (ImageError, OSError):
        return {"name": name, "image": ""}
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), reducing_gap=2.0)
    return {"name": name, "image": _data_uri(np.asarray(image))}


def _data_uri(pixels: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
