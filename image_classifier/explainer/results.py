"""The folder of one explained image: heat maps for people, all values for programs."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from image_classifier.explainer import heat_map
from image_classifier.explainer.explanation import Explanation
from image_classifier.explainer.image import SegmentedImage

FILE = "explanation.json"
IMAGE, OUTLINES, SEGMENTS = "image.jpeg", "segments.jpeg", "segments.png"

# Of more classes than this, the likeliest get heat maps; the values are there for all.
MAX_HEAT_MAPS = 10

UNSAFE = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What is on disk about one image."""

    mark: str
    """Of the settings and the image that it was made of."""

    heat_maps: dict[int, str]
    """Files in the folder by class, the likeliest class first."""

    explanation: Explanation


def write(
    folder: Path, image: SegmentedImage, found: Explanation, class_names: Sequence[str], mark: str
) -> Result:
    """Write an image's files; the last one makes the folder count as finished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    (folder / IMAGE).write_bytes(heat_map.jpeg(image.pixels))
    outlines = heat_map.outlined(image.pixels, image.segments)
    (folder / OUTLINES).write_bytes(heat_map.jpeg(outlines))
    Image.fromarray(image.segments.astype(np.uint16)).save(folder / SEGMENTS)
    shapley = np.array(found.shapley)
    likeliest = np.argsort(found.scores)[::-1][:MAX_HEAT_MAPS].tolist()
    # One scale for all of an image's maps: they are to be compared.
    strongest = float(np.abs(shapley[:, likeliest]).max())
    files = {}
    for label in likeliest:
        # Names of classes are anybody's, those of files are not.
        files[label] = f"heat_map_{label}_{UNSAFE.sub('-', class_names[label])[:60]}.jpeg"
        drawn = heat_map.heat_map(image.pixels, image.segments, shapley[:, label], strongest)
        (folder / files[label]).write_bytes(heat_map.jpeg(drawn))
    document = {
        "mark": mark,
        "class_names": list(class_names),
        "heat_maps": files,
        "explanation": found.to_json(),
    }
    with replacing(folder / FILE) as partial:
        partial.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return Result(mark=mark, heat_maps=files, explanation=found)


def read(folder: Path) -> Result | None:
    """Read what was written; None where nothing is, or where it is not whole."""
    try:
        document = json.loads((folder / FILE).read_bytes())
        return Result(
            mark=document["mark"],
            heat_maps={int(label): file for label, file in document["heat_maps"].items()},
            explanation=Explanation.from_json(document["explanation"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        # Of somebody else, or damaged: it is made again.
        return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write; when all is well it takes the place of `path`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
