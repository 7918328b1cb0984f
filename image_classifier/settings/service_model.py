"""Validate requests against botocore's model of the API, without sending them.

botocore itself checks names, types and required fields; the model also has the lengths, patterns
and enumerations that the service checks.
"""

import functools
import re
from collections.abc import Iterator, Mapping

import botocore.session
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape
from botocore.validate import ParamValidator

from container.classifier.errors import UserError

Request = dict[str, object]


@functools.cache
def _model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


def configured_region() -> str | None:
    """Return the region of the environment or of AWS's configuration file, if there is one."""
    region = botocore.session.get_session().get_config_variable("region")
    return str(region) if region else None


def choices(shape: str) -> tuple[str, ...]:
    """Return the values of one of SageMaker's enumerations, such as `TrainingInstanceType`."""
    return tuple(_model("sagemaker").shape_for(shape).metadata["enum"])


def check(operation: str, request: Mapping[str, object], service: str = "sagemaker") -> None:
    """Check a request.

    Raises:
        UserError: the service would reject it; every reason is listed.
    """
    shape: Shape = _model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    found = [report.generate_report()] if report.has_errors() else [*_violations(shape, request)]
    if found:
        raise UserError(f"{operation} would be rejected: {'; '.join(found)}")


def _violations(shape: Shape, value: object, name: str = "") -> Iterator[str]:
    """Yield violations that botocore does not check."""
    yield from _bounds(shape, value, name)
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _violations(shape.members[key], item, f"{name}.{key}".lstrip("."))
    elif isinstance(shape, ListShape) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _violations(shape.member, item, f"{name}[{index}]")
    elif isinstance(shape, MapShape) and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _violations(shape.key, key, f"{name} (key {key!r})")
            yield from _violations(shape.value, item, f"{name}.{key}")


def _bounds(shape: Shape, value: object, name: str) -> Iterator[str]:
    rules = shape.metadata
    size = len(value) if isinstance(value, str | list | dict) else value
    if isinstance(size, int | float) and not isinstance(value, bool):
        if size > rules.get("max", size):
            yield f"{name} is {size}, more than {rules['max']}"
        if size < rules.get("min", size):
            yield f"{name} is {size}, less than {rules['min']}"
    if not isinstance(value, str):
        return
    if value not in rules.get("enum", (value,)):
        yield f"{name} {value!r} is not one of its values"
    pattern = rules.get("pattern")
    if pattern and not _matches(pattern, value):
        yield f"{name} {value!r} does not match {pattern}"


def _matches(pattern: str, value: str) -> bool:
    """Match a Java pattern, with the character classes of most of SageMaker's patterns.

    A pattern that Python cannot compile is left to the service.
    """
    translated = pattern.replace(r"\p{L}\p{Z}\p{N}", r"\w\s").replace(r"\p{M}", "")
    # The second is the quantifier of a group with a `$` too many.
    translated = translated.replace(r"\P", r"\w").replace(")${", "){")
    try:
        return re.fullmatch(translated, value) is not None
    except re.error:
        return True
