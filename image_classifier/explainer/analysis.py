"""What is to be explained and how: Clarify's analysis configuration for images.

Names, defaults and meanings are Clarify's. What it has for tables, texts and time series alone is
refused by name, and so is what only AWS's own service could do.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias

from container.classifier.errors import UserError
from container.classifier.vocabulary import (
    ANY_IMAGE,
    JSON,
    NPY,
    RESPONSE_MEDIA_TYPES,
)

Json: TypeAlias = Mapping[str, Any]

JPEG, PNG = "image/jpeg", "image/png"
CONTENT_TYPES = (JPEG, PNG, NPY, JSON)

MAX_CONFIG_BYTES = 2**20
MAX_SEGMENTS, MAX_SAMPLES = 1000, 1_000_000

# JSON, as Python reads it, has NaN, infinity and whole numbers of any length.
BEYOND_ANY = 1e15

# The report's file is called so: no path.
FILE_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")

# Of no meaning here, and of no harm: where data come from is the caller's word, segments of
# different images have nothing to be aggregated over, boxes are for detection, and instances are
# for an endpoint that Clarify starts itself.
_TOP = {"version", "dataset_type", "dataset_uri", "headers", "label", "methods", "predictor"}
_METHODS = {"shap", "report"}
_SHAP = {
    *("num_samples", "image_config", "baseline", "seed", "use_logit"),
    *("save_local_shap_values", "agg_method"),
}
_IMAGE = {
    *("model_type", "num_segments", "segment_compactness", "feature_extraction_method"),
    *("max_objects", "iou_threshold", "context"),
}
_PREDICTOR = {
    *("endpoint_name", "model_name", "endpoint_name_prefix", "target_model", "custom_attributes"),
    *("content_type", "accept_type", "probability", "label", "label_headers"),
    *("instance_type", "initial_instance_count", "accelerator_type"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """How the model is asked."""

    endpoint_name: str | None = None
    """On SageMaker."""

    target_model: str | None = None
    """Of a multi-model endpoint."""

    custom_attributes: str | None = None

    content_type: str = JPEG
    """Of a request: one image's file, or an array or a JSON document of one or several."""

    accept_type: str = JSON

    probability: str | None = None
    """JMESPath to the scores; without it they are found in this project's answers and in others
    whose JSON holds nothing else."""

    label_headers: tuple[str, ...] | None = None
    """The classes in the order of the scores; without them the answer has to name them."""

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read the `predictor` section.

        Raises:
            UserError: something in it is unknown or not possible.
        """
        _check_names(document, _PREDICTOR, "predictor")
        if "model_name" in document and "endpoint_name" not in document:
            message = (
                "predictor.model_name asks for an endpoint that only Clarify's own service starts: "
                "deploy the model and give endpoint_name"
            )
            raise UserError(message)
        headers = document.get("label_headers")
        return cls(
            endpoint_name=_text(document, "endpoint_name"),
            target_model=_text(document, "target_model"),
            custom_attributes=_text(document, "custom_attributes"),
            content_type=_choice(document, "content_type", CONTENT_TYPES, JPEG),
            accept_type=_choice(document, "accept_type", RESPONSE_MEDIA_TYPES, JSON),
            probability=_text(document, "probability"),
            label_headers=None if headers is None else _labels(headers),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """All settings of one analysis."""

    num_samples: int = 500
    """Evaluations of the model from which an image's values are computed."""

    num_segments: int = 20
    """About so many super-pixels an image."""

    segment_compactness: float = 5.0
    """The higher, the squarer are the super-pixels; 0.01 to 100, on a log scale."""

    seed: int = 0

    use_logit: bool = False
    """Explain log-odds rather than probabilities."""

    save_local_shap_values: bool = False
    """Put every super-pixel's values into analysis.json as well."""

    baseline: Path | None = None
    """An image that is shown where super-pixels are hidden; without one, white noise."""

    report_name: str = "report"
    report_title: str = "Why the classifier answers as it does"

    predictor: Predictor = field(default_factory=Predictor)

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_range("num_segments", self.num_segments, 2, MAX_SEGMENTS)
        _check_range("num_samples", self.num_samples, 2 * self.num_segments + 2, MAX_SAMPLES)
        _check_range("segment_compactness", self.segment_compactness, 1e-4, 1e4)
        _check_range("seed", self.seed, 0, 2**32 - 1)
        if not FILE_NAME.fullmatch(self.report_name):
            message = f"report.name must be a file's name without a path, got {self.report_name!r}"
            raise UserError(message)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an analysis_config.json; a baseline is found from its folder on.

        Raises:
            UserError: it cannot be read, or something in it is unknown or not possible.
        """
        try:
            if path.stat().st_size > MAX_CONFIG_BYTES:
                message = f"{path} has more than {MAX_CONFIG_BYTES} bytes: is it a configuration?"
                raise UserError(message)
            document = json.loads(path.read_bytes())
        except OSError as error:
            message = f"cannot read {path}: {error.strerror}"
            raise UserError(message) from error
        except (ValueError, RecursionError) as error:
            message = f"{path} is not JSON: {error}"
            raise UserError(message) from error
        try:
            return cls.from_json(document, path.parent)
        except UserError as error:
            message = f"{path}: {error}"
            raise UserError(message) from error

    @classmethod
    def from_json(cls, document: object, folder: Path = Path()) -> Self:
        """Read Clarify's analysis configuration.

        Raises:
            UserError: something in it is unknown or not possible.
        """
        top = _section({"configuration": document}, "configuration")
        _check_names(top, _TOP, "the configuration")
        if str(top.get("dataset_type", ANY_IMAGE)).lower() != ANY_IMAGE:
            message = f"dataset_type must be {ANY_IMAGE}, got {top['dataset_type']!r}"
            raise UserError(message)
        methods = _section(top, "methods")
        _check_names(methods, _METHODS, "methods")
        if "shap" not in methods:
            message = "methods.shap is missing: it is what explains images"
            raise UserError(message)
        return cls(
            **_shap(_section(methods, "shap"), folder),
            **_report(_section(methods, "report")),
            predictor=Predictor.from_json(_section(top, "predictor")),
        )


def _shap(document: Json, folder: Path) -> dict[str, Any]:
    if "features_to_explain" in document:
        message = "shap.features_to_explain is for tables: images are explained as a whole"
        raise UserError(message)
    _check_names(document, _SHAP, "shap")
    image = _section(document, "image_config")
    _check_names(image, _IMAGE, "image_config")
    _check_model_type(image.get("model_type"))
    _choice(image, "feature_extraction_method", ("segmentation",), "segmentation")
    numbers = {
        "num_samples": _number(document, "num_samples", int),
        "seed": _number(document, "seed", int),
        "num_segments": _number(image, "num_segments", int),
        "segment_compactness": _number(image, "segment_compactness", float),
    }
    return {
        **{name: number for name, number in numbers.items() if number is not None},
        "use_logit": _boolean(document, "use_logit"),
        "save_local_shap_values": _boolean(document, "save_local_shap_values"),
        "baseline": _baseline(document, folder),
    }


def _report(document: Json) -> dict[str, Any]:
    _check_names(document, {"name", "title"}, "report")
    given = {f"report_{name}": _text(document, name) for name in ("name", "title")}
    return {name: text for name, text in given.items() if text}


def _check_model_type(model_type: object) -> None:
    if model_type == "OBJECT_DETECTION":
        message = (
            "model_type OBJECT_DETECTION needs answers with boxes, and this explains classifiers, "
            "which give probabilities alone: set IMAGE_CLASSIFICATION"
        )
        raise UserError(message)
    if model_type != "IMAGE_CLASSIFICATION":
        message = f"image_config.model_type must be IMAGE_CLASSIFICATION, got {model_type!r}"
        raise UserError(message)


def _baseline(document: Json, folder: Path) -> Path | None:
    text = _text(document, "baseline")
    if text is None:
        return None
    if text.startswith("s3://"):
        message = (
            f"shap.baseline is {text}: copy it here (aws s3 cp) and give the file's path, "
            "from the configuration's folder on"
        )
        raise UserError(message)
    return folder / text


def _check_names(document: Json, known: set[str], where: str) -> None:
    if unknown := sorted(document.keys() - known):
        message = f"unknown in {where}: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        raise UserError(message)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        message = f"{name} must be {low:g} to {high:g}, got {value:g}"
        raise UserError(message)


def _section(document: Json, name: str) -> Json:
    value = document.get(name, {})
    if not isinstance(value, dict):
        message = f"{name} must be a JSON object, got {value!r}"
        raise UserError(message)
    return value


def _text(document: Json, name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        message = f"{name} must be a text, got {value!r}"
        raise UserError(message)
    return value


def _choice(document: Json, name: str, choices: Sequence[str], default: str) -> str:
    value = _text(document, name)
    if value is None:
        return default
    # Clarify's SDK lets this one through.
    value = value.lower().replace("image/jpg", JPEG)
    if value not in choices:
        message = f"{name} must be one of {', '.join(choices)}, got {value!r}"
        raise UserError(message)
    return value


def _number(document: Json, name: str, kind: type[int] | type[float]) -> float | None:
    value = document.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # NaN is not below anything.
    is_number = is_number and abs(value) < BEYOND_ANY
    if not is_number or (kind is int and value != int(value)):
        message = f"{name} must be a {'whole ' if kind is int else ''}number, got {value!r}"
        raise UserError(message)
    return kind(value)


def _boolean(document: Json, name: str) -> bool:
    value = document.get(name, False)
    if not isinstance(value, bool):
        message = f"{name} must be true or false, got {value!r}"
        raise UserError(message)
    return value


def _labels(headers: object) -> tuple[str, ...]:
    if not (isinstance(headers, list) and headers):
        message = f"label_headers must be a list of the classes' names, got {headers!r}"
        raise UserError(message)
    return tuple(map(str, headers))
