"""Types of values in the settings file: checks that a JSON Schema can express too."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from image_classifier.settings import service_model
from image_classifier.settings.suggestion import suggestion

# The limit of the API.
MAX_TAG_KEY = 128

BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
CONTAINER_IMAGE = r"\d{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/.+"
_ECR_EXAMPLE = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/image-classifier-train:TAG"


# Hashed by identity, as annotations are.
@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A check of a value, with the part of it that a JSON Schema can express."""

    function: Callable[[Any], object]
    """Returns the value, or raises ValueError."""

    json_schema: Mapping[str, object]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Call the function after the type of the value has been checked."""
        return core_schema.no_info_after_validator_function(self.function, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema of the type with that of the check."""
        return {**handler(schema), **self.json_schema}


def like(pattern: str, example: str) -> Check:
    """Return a check of text that is empty or matches a regular expression."""

    def check(text: str) -> str:
        if text and not re.fullmatch(pattern, text):
            raise ValueError(f"must look like {example}")
        return text

    # Editors know no named groups.
    anchored = f"^({re.sub(r'[?]P<[a-z]+>', '', pattern)})?$"
    return Check(check, {"pattern": anchored})


def one_of(names: Collection[str]) -> Check:
    """Return a check of text that is one of the names."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"has an unknown value{suggestion(name, names)}")
        return name

    return Check(check, {"enum": list(names)})


def instance_for(enumeration: str) -> Check:
    """Return a check of instance types, by the name of SageMaker's list of them."""

    def check(name: str) -> str:
        if name not in service_model.choices(enumeration):
            hint = "" if name.startswith("ml.") else f"; did you mean ml.{name}?"
            raise ValueError(f"must be an instance type that SageMaker has for this{hint}")
        return name

    # Without the names, which change with every version of boto3.
    return Check(check, {"pattern": r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"})


def _check_tag(key: str) -> str:
    if key.lower().startswith("aws:") or len(key) > MAX_TAG_KEY:
        raise ValueError("must be a tag key of up to 128 characters that does not begin with aws:")
    return key


def _check_scalar(value: object) -> object:
    if not isinstance(value, (str, int, float, bool)):
        raise ValueError("must be one value")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


# Lax in this one respect: TOML has lists, and frozen models have tuples.
Strings = Annotated[tuple[str, ...], Field(strict=False)]

Scalar = Annotated[
    object, Check(_check_scalar, {"type": ["string", "integer", "number", "boolean"]})
]

Count = Annotated[int, Field(ge=1, le=100)]

TagKey = Annotated[str, AfterValidator(_check_tag)]

ContainerImage = Annotated[str, like(CONTAINER_IMAGE, f"a container image in ECR, {_ECR_EXAMPLE}")]
