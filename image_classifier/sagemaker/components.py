"""The inference component of an endpoint that scales to zero: the copies of its model.

It has the endpoint's name, and remains when the endpoint is deleted without it.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from container.classifier.errors import UserError
from image_classifier.sagemaker import aws as calls
from image_classifier.sagemaker import endpoint_requests, resources, rollout
from image_classifier.sagemaker.aws import Aws, Response
from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request

NOUN = "InferenceComponent"

# SageMaker's code for a name that does not exist. Policies of earlier versions do not permit
# reading components; such users have none.
_NONE = frozenset({"ValidationException", "AccessDeniedException"})

# Fields of an endpoint configuration that differ from one to the next without effect.
_UNCOMPARED = frozenset({"EndpointConfigName", "Tags", "InitialInstanceCount"})

_DELETION_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Component:
    """An inference component."""

    name: str
    status: str
    copies: int
    """Copies that run now."""
    owner: str | None
    """The creator; None if it is unknown, or of other settings."""

    def __str__(self) -> str:
        """Return kind, name, status and copies."""
        return f"inference component {self.name} ({self.status}, copies: {self.copies})"


def find(aws: Aws, settings: Settings) -> Component | None:
    """Return the inference component of the settings' name, of any user.

    Raises:
        UserError: AWS rejected a request.
    """
    response = _describe(aws, settings)
    if response is None:
        return None
    owner = resources.find_owner(aws, settings, response["InferenceComponentArn"])
    copies = int(response.get("RuntimeConfig", {}).get("CurrentCopyCount", 0))
    return Component(settings.name, response["InferenceComponentStatus"], copies, owner)


def deploy(aws: Aws, settings: Settings, model: str, *, is_new_endpoint: bool) -> None:
    """Create the component, or update it with the model; wait until it serves the model.

    A component that an earlier endpoint has left, or that failed, is replaced.

    Raises:
        UserError: AWS rejected a request, or the component failed.
    """
    found = None if aws.is_dry else find(aws, settings)
    if found is not None and (is_new_endpoint or found.status != "InService"):
        if found.status != "Deleting":
            aws.send(f"Delete{NOUN}", deletion(settings))
        wait_until_deleted(aws, settings)
        found = None
    if found is None:
        request = endpoint_requests.new_inference_component(settings, model)
        aws.send(f"Create{NOUN}", request)
    else:
        request = endpoint_requests.inference_component(settings, model)
        aws.send(f"Update{NOUN}", request)
    if not aws.is_dry:
        rollout.wait(aws, settings, model, NOUN)


def check(aws: Aws, settings: Settings, *, exists: bool) -> None:
    """Check before a deployment that the endpoint, if it exists, and its component fit.

    Raises:
        UserError: they do not, or the component is another user's.
    """
    needs_component = settings.endpoint.has_component
    if not (exists or needs_component):
        return
    component = find(aws, settings)
    if component is not None and needs_component:
        resources.check_owner(aws, rollout.KINDS[NOUN], component.name, component.owner)
    if not exists or (component is None and not needs_component):
        return
    described = aws.query("DescribeEndpoint", {"EndpointName": settings.name})
    name = {"EndpointConfigName": described["EndpointConfigName"]}
    found = aws.query("DescribeEndpointConfig", name)
    has_component = "ModelName" not in found["ProductionVariants"][0]
    if has_component != needs_component:
        with_or_without = "with" if has_component else "without"
        raise UserError(
            f"the endpoint {settings.name} was created {with_or_without} an inference component "
            "(scaling.min_instances = 0), which an update cannot change: `delete` it, then deploy"
        )
    if not has_component:
        return
    wanted = endpoint_requests.endpoint_config(settings, settings.name)
    if changed := sorted({*_changes(found, wanted)}):
        raise UserError(
            f"the endpoint {settings.name} has another {', '.join(changed)} than the settings, "
            "and with an inference component only its model can change: `delete` it, then deploy"
        )
    if component is not None and component.status in {"Creating", "Updating"}:
        raise UserError(f"the {component} changes: wait until it is InService")


def deletion(settings: Settings) -> Request:
    """Return DeleteInferenceComponent."""
    return {"InferenceComponentName": settings.name}


def wait_until_deleted(aws: Aws, settings: Settings) -> None:
    """Wait until the component is deleted: SageMaker stops its copies first.

    Raises:
        UserError: it still exists after 15 minutes.
    """
    for _ in range(math.ceil(_DELETION_SECONDS / max(calls.POLL_SECONDS, 1))):
        if _describe(aws, settings) is None:
            return
        time.sleep(calls.POLL_SECONDS)
    raise UserError(
        f"the inference component {settings.name} still exists after {_DELETION_SECONDS // 60} "
        "minutes: run the command again"
    )


def _describe(aws: Aws, settings: Settings) -> Response | None:
    request = {"InferenceComponentName": settings.name}
    return aws.query_unless(_NONE, f"Describe{NOUN}", request, "sagemaker")


def _changes(found: object, wanted: object, name: str = "") -> Iterator[str]:
    """Yield the names of fields that differ; those that only `found` has are defaults."""
    if isinstance(wanted, Mapping):
        given = found if isinstance(found, Mapping) else {}
        for key in wanted.keys() - _UNCOMPARED:
            yield from _changes(given.get(key), wanted[key], key)
    elif isinstance(wanted, list) and isinstance(found, list) and len(found) == len(wanted):
        for one, other in zip(found, wanted, strict=True):
            yield from _changes(one, other, name)
    elif (found or None) != (wanted or None):
        yield name
