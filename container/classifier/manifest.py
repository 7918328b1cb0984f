"""The manifest of an artifact: a description of the classifier, in JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Self

from container.classifier.checked_files import Json, damage_reported, read_json
from container.classifier.errors import ArtifactError
from container.classifier.preprocessing import Preprocessing

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

FLOAT32, INT8 = "float32", "int8"
PRECISIONS = (FLOAT32, INT8)

# Axes of images (N, 3, H, W): horizontal, vertical and both.
FLIPS = ((3,), (2,), (2, 3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The description of a classifier."""

    class_names: tuple[str, ...]
    """In the order of the probabilities."""

    network: str
    """A torchvision network by name, or `small`."""

    preprocessing: Preprocessing

    metrics: Mapping[str, Json] = field(default_factory=dict)
    """Metrics of the validation images, at the epoch of the saved weights."""

    temperature: float = 1.0
    """Calibration: the ONNX graph divides the logits by it. 1 if calibration does not help."""

    flips: tuple[tuple[int, ...], ...] = ()
    """Items of `FLIPS`: the ONNX graph averages the logits over the image and these flips of it.
    Older manifests do not have the key."""

    precision: str = FLOAT32
    """Precision of serving: `int8` if training has accepted the int8 network."""

    provenance: Mapping[str, Json] = field(default_factory=dict)
    """Data, code, packages, random seed and hardware of the training."""

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the manifest alone, not the other files of the artifact.

        Raises:
            ArtifactError: there is no manifest, or it is damaged.
        """
        return cls.from_json(read_manifest(directory))

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read a manifest's JSON.

        Raises:
            ArtifactError: a key is missing or its value has another type.
        """
        with damage_reported(MANIFEST):
            if not isinstance(document, dict) or document.get("format_version") != FORMAT_VERSION:
                raise ArtifactError(f"{MANIFEST} is not of format_version {FORMAT_VERSION}")
            return cls(
                class_names=_class_names(document["class_names"]),
                network=typed(document, "network", str),
                preprocessing=Preprocessing(**typed(document, "preprocessing", dict)),
                metrics=typed(document, "metrics", dict),
                temperature=float(typed(document, "temperature", float | int)),
                flips=_flips(document.get("flips", [])),
                precision=_precision(document["precision"]),
                provenance=typed(document, "provenance", dict),
            )


def read_manifest(directory: Path) -> Json:
    """Return the manifest's JSON.

    Raises:
        ArtifactError: there is no manifest, or it is not JSON.
    """
    if not (directory / MANIFEST).is_file():
        raise ArtifactError(
            f"no {MANIFEST} in {directory}: is this an artifact of our training container image?"
        )
    return read_json(directory, MANIFEST)


def typed(document: Mapping[str, Json], name: str, kind: type | UnionType) -> Any:  # noqa: ANN401 - of `kind`
    """Return the value of a key of a JSON object.

    Raises:
        KeyError: the key is missing.
        ArtifactError: the value is not of type `kind`.
    """
    value = document[name]
    if not isinstance(value, kind):
        raise ArtifactError(f"{name} must be {kind}, got {value!r}")
    return value


def _class_names(names: Json) -> tuple[str, ...]:
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ArtifactError(f"class_names must be a list of names, got {names!r}")
    if not len(names) == len(set(names)) > 1:
        raise ArtifactError(f"class_names must be at least two different names, got {names!r}")
    return tuple(map(str, names))


def _precision(name: Json) -> str:
    if name not in PRECISIONS:
        raise ArtifactError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    return str(name)


def _flips(flips: Json) -> tuple[tuple[int, ...], ...]:
    known = [list(axes) for axes in FLIPS]
    if not isinstance(flips, list) or any(axes not in known for axes in flips):
        raise ArtifactError(f"flips must be a list of some of {known}, got {flips!r}")
    return tuple(axes for axes in FLIPS if list(axes) in flips)
