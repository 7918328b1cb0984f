"""Clarify's analysis configuration for images: keys, defaults and meanings are Clarify's.

Keys that only concern tables, texts or time series are rejected, and so are those that only
AWS's own service can follow.
"""

import json
import re
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from container.classifier.errors import UserError
from container.classifier.media_types import ANY_IMAGE, JSON, NPY, RESPONSE_MEDIA_TYPES

JPEG, PNG = "image/jpeg", "image/png"

TITLE = "Explanations of predictions"

MAX_CONFIG_BYTES = 2**20
MAX_SEGMENTS, MAX_SAMPLES = 1000, 1_000_000
MAX_SHOWN = 100


def _one_of(*choices: str) -> AfterValidator:
    def check(text: str) -> str:
        # Clarify's SDK accepts image/jpg.
        name = text.lower().replace("image/jpg", JPEG)
        if name not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, got {text!r}")
        return name

    return AfterValidator(check)


def _check_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, got {value!r}")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def _check_names(value: object) -> tuple[str, ...]:
    if not (isinstance(value, list | tuple) and value):
        raise ValueError(f"must be a list of the classes' names, got {value!r}")
    return tuple(map(str, value))


def _check_file_name(name: str) -> str:
    if name and not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name):
        raise ValueError(f"must be a file name without a path, got {name!r}")
    return name or "report"


def _check_model_type(model_type: str) -> str:
    if model_type != "IMAGE_CLASSIFICATION":
        raise ValueError(
            f"must be IMAGE_CLASSIFICATION, got {model_type!r}: "
            "classifiers return probabilities, not boxes"
        )
    return model_type


def _find_baseline(value: object, info: ValidationInfo) -> object:
    """Return the path of the baseline, relative to the folder of the configuration."""
    if isinstance(value, str) and value.startswith("s3://"):
        raise ValueError(f"is {value}: copy it to this machine (aws s3 cp) and set the file's path")
    return (info.context or Path()) / value if isinstance(value, str) else value


# Lax in one respect: JSON's 10.0 is an integer.
Integer = Annotated[int, Field(strict=False), BeforeValidator(_check_number)]


class Section(BaseModel):
    """A JSON object of the configuration; null is the same as a key that is left out."""

    model_config = ConfigDict(frozen=True, strict=True)

    ignored: ClassVar[frozenset[str]] = frozenset()
    """Keys without effect here: of Clarify's own job, or for other kinds of models."""

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        known = cls.model_fields.keys() | cls.ignored
        if unknown := sorted(data.keys() - known):
            raise ValueError(
                f"has unknown keys: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        return {key: data[key] for key in data.keys() - cls.ignored if data[key] is not None}


class ImageConfig(Section):
    """How images are divided into superpixels."""

    ignored = frozenset({"max_objects", "iou_threshold", "context"})

    model_type: Annotated[str, AfterValidator(_check_model_type)]

    num_segments: Integer = Field(default=20, ge=2, le=MAX_SEGMENTS)
    """Approximate number of superpixels per image."""

    segment_compactness: float | None = Field(default=5.0, ge=1e-4, le=1e4, allow_inf_nan=False)
    """The higher, the more square are the superpixels; 0.01 to 100, on a log scale.

    None, which Clarify does not have, chooses it for each image by the number of superpixels.
    """

    feature_extraction_method: Annotated[str, _one_of("segmentation")] = "segmentation"


class Shap(Section):
    """How Shapley values are computed."""

    ignored = frozenset({"agg_method"})

    image_config: ImageConfig

    num_samples: Integer = Field(default=500, le=MAX_SAMPLES)
    """Evaluations of the model per image."""

    seed: Integer = Field(default=0, ge=0, le=2**32 - 1)

    use_logit: bool = False
    """Explain log-odds instead of probabilities."""

    save_local_shap_values: bool = False
    """Write the values of every superpixel into analysis.json too."""

    baseline: Annotated[Path, BeforeValidator(_find_baseline)] | None = None
    """An image whose pixels replace hidden superpixels; unset: white noise."""

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        least = 2 * self.image_config.num_segments + 2
        if self.num_samples < least:
            raise ValueError(
                f"num_samples must be {least} to {MAX_SAMPLES}, got {self.num_samples}"
            )
        return self


class Report(Section):
    """The report's file name, without .html, and its heading."""

    name: Annotated[str, AfterValidator(_check_file_name)] = "report"
    title: Annotated[str, AfterValidator(lambda title: title or TITLE)] = TITLE


class Methods(Section):
    """What to compute, and how to report it."""

    shap: Shap
    report: Report = Report()


class Predictor(Section):
    """How requests to the model are made."""

    ignored = frozenset(
        {
            *("endpoint_name_prefix", "label"),
            *("instance_type", "initial_instance_count", "accelerator_type"),
        }
    )

    endpoint_name: str | None = None
    """A SageMaker endpoint."""

    target_model: str | None = None
    """A model of a multi-model endpoint."""

    custom_attributes: str | None = None

    content_type: Annotated[str, _one_of(JPEG, PNG, NPY, JSON)] = JPEG
    """Type of a request: one image file, or an array or JSON document of one or several images."""

    accept_type: Annotated[str, _one_of(*RESPONSE_MEDIA_TYPES)] = JSON

    probability: str | None = None
    """JMESPath of the scores; unset: found in responses of this project and in any JSON that
    contains nothing else."""

    label_headers: Annotated[tuple[str, ...], BeforeValidator(_check_names)] | None = None
    """The classes in the order of the scores; unset: the response has to name them."""

    model_name: object = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _check_endpoint(self) -> Self:
        if self.model_name is not None and self.endpoint_name is None:
            raise ValueError(
                "model_name needs an endpoint that only Clarify's own service starts: "
                "deploy the model and set endpoint_name"
            )
        return self


class Analysis(Section):
    """All settings of one analysis."""

    ignored = frozenset({"version", "dataset_uri", "headers", "label"})

    methods: Methods
    predictor: Predictor = Predictor()
    dataset_type: Annotated[str, _one_of(ANY_IMAGE)] = ANY_IMAGE

    @property
    def shap(self) -> Shap:
        """Return how Shapley values are computed."""
        return self.methods.shap

    @classmethod
    def create(
        cls,
        predictor: Predictor,
        *,
        num_samples: int = 500,
        num_segments: int = 20,
        segment_compactness: float | None = None,
        baseline: Path | None = None,
    ) -> Self:
        """Return an analysis with defaults for everything else.

        The compactness None is chosen for each image; Clarify's default is 5.
        """
        image_config = ImageConfig(model_type="IMAGE_CLASSIFICATION", num_segments=num_segments)
        # In a configuration null is the default.
        image_config = image_config.model_copy(update={"segment_compactness": segment_compactness})
        shap = Shap(num_samples=num_samples, image_config=image_config, baseline=baseline)
        return cls(methods=Methods(shap=shap), predictor=predictor)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an analysis_config.json.

        Raises:
            UserError: it cannot be read, or has unknown keys or values that are not allowed.
        """
        try:
            if path.stat().st_size > MAX_CONFIG_BYTES:
                raise UserError(
                    f"{path} has more than {MAX_CONFIG_BYTES} bytes: is it a configuration?"
                )
            document = json.loads(path.read_bytes())
            return cls.model_validate(document, context=path.parent)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        except ValidationError as error:
            raise UserError(f"{path}: {'; '.join(map(_sentence, error.errors()))}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON: {error}") from error


def _sentence(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"])) or "the configuration"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "value_error":
        return f"{where} {error['msg'].removeprefix('Value error, ')}"
    if error["type"] in {"model_type", "model_attributes_type"}:
        return f"{where} must be a JSON object, got {error['input']!r:.{MAX_SHOWN}}"
    allowed = re.sub(r"^\w+ should", "must", error["msg"])
    return f"{where} {allowed}, got {error['input']!r:.{MAX_SHOWN}}"
