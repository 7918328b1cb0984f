"""The folder of one explained image: heat maps for people, all values for programs."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from image_classifier.explainer.explanation import Explanation
from image_classifier.explainer.image import SegmentedImage, encode_jpeg

FOLDER = "explanations_shap"
FILE = "explanation.json"
IMAGE, OUTLINES, SEGMENTS = "image.jpeg", "segments.jpeg", "segments.png"

# Heat maps are drawn for the most probable classes; FILE has the values of all.
MAX_HEAT_MAPS = 10

UNSAFE = re.compile(r"[^A-Za-z0-9]+")


class Result(BaseModel):
    """An explained image."""

    file: str = Field(exclude=True)
    """Path of the image, relative to the folder of all images."""

    image: Path = Field(exclude=True)
    """The image."""

    output: Path = Field(exclude=True)
    """The folder of the analysis."""

    mark: str
    """Hash of the image, the settings and the model's names."""

    class_names: tuple[str, ...]

    heat_maps: dict[int, str] = Field(default_factory=dict)
    """File names by class, the most probable class first."""

    explanation: Explanation

    @property
    def folder(self) -> Path:
        """The folder of the result's files."""
        return self.output / FOLDER / self.file

    @property
    def true(self) -> str | None:
        """The image's class, if the folder that contains it has the name of a class."""
        parent = self.image.absolute().parent.name
        return parent if parent in self.class_names else None

    @property
    def predicted(self) -> str:
        """The class of the highest score."""
        return self.class_names[self.explanation.predicted]

    @property
    def is_wrong(self) -> bool:
        """Whether the predicted class differs from the known true one."""
        return self.true not in {None, self.predicted}

    def write(self, image: SegmentedImage) -> None:
        """Write all files and set `heat_maps`; FILE, written last, marks the folder as complete."""
        folder, explanation = self.folder, self.explanation
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).unlink(missing_ok=True)
        (folder / IMAGE).write_bytes(encode_jpeg(image.pixels))
        (folder / OUTLINES).write_bytes(encode_jpeg(image.outlines()))
        Image.fromarray(image.segments.astype(np.uint16)).save(folder / SEGMENTS)
        shapley = np.array(explanation.shapley)
        labels = np.argsort(explanation.scores)[::-1][:MAX_HEAT_MAPS].tolist()
        # One scale for all heat maps of an image, so that they can be compared.
        max_value = float(np.abs(shapley[:, labels]).max())
        for label in labels:
            # Class names can contain any character.
            name = f"heat_map_{label}_{UNSAFE.sub('-', self.class_names[label])[:60]}.jpeg"
            pixels = image.heat_map(shapley[:, label], max_value)
            (folder / name).write_bytes(encode_jpeg(pixels))
            self.heat_maps[label] = name
        with replacing(folder / FILE) as file:
            file.write(json.dumps(self.model_dump()) + "\n")

    def to_json(self, *, local_values: bool) -> dict[str, Any]:
        """Return the entry in analysis.json."""
        explanation, curves = self.explanation, self.explanation.curves
        folder = f"{FOLDER}/{self.file}"
        entry = {
            "file": self.file,
            "true_label": self.true,
            "predicted_label": self.predicted,
            "scores": self._by_class(explanation.scores),
            "expected_values": self._by_class(explanation.expected),
            "segments": len(explanation.shapley),
            "method": explanation.method,
            "evaluations": explanation.evaluations,
            "deletion_area": curves.deletion_area,
            "insertion_area": curves.insertion_area,
            "random_area": curves.random_area,
            "randomized": explanation.sanity and explanation.sanity.model_dump(),
            "heat_maps": {
                self.class_names[label]: f"{folder}/{name}"
                for label, name in self.heat_maps.items()
            },
        }
        if local_values:
            columns = np.array(explanation.shapley).T.tolist()
            entry["local_shap_values"] = self._by_class(columns)
        return entry

    def _by_class(self, values: Any) -> dict[str, Any]:  # noqa: ANN401 - a number or a list
        return dict(zip(self.class_names, values, strict=True))


def read(output: Path, file: str, image: Path) -> Result | None:
    """Read the result of an image; None if it is missing or damaged."""
    try:
        document = json.loads((output / FOLDER / file / FILE).read_bytes())
        return Result.model_validate({**document, "file": file, "image": image, "output": output})
    except (FileNotFoundError, ValueError, TypeError):
        return None


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Yield a text file to write; it replaces `path` when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        # File names can be invalid Unicode.
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
