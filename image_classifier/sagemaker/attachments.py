"""What belongs to the endpoint: its schedule, autoscaling, alarm and inference component."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from image_classifier.sagemaker import components, expiry, scaling
from image_classifier.sagemaker.aws import Aws, NoAccountError
from image_classifier.sagemaker.resources import Found
from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request

# Policies of earlier versions do not permit reading these; such users have none.
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})


class Attachment(NamedTuple):
    """A part of the endpoint, with the call that deletes it."""

    kind: str
    """As CloudFormation names it."""
    name: str
    description: str
    operation: str
    request: Request
    service: str

    def __str__(self) -> str:
        """Return the description."""
        return self.description


def find(aws: Aws, settings: Settings, found: Found) -> list[Attachment]:
    """Return what belongs to the endpoint, or was left by an earlier one of the same name.

    None of it belongs to this user if the endpoint is another user's. In a dry run without an
    account, placeholders name everything that can exist.

    Raises:
        UserError: AWS rejected a request.
    """
    if any(each.noun == "Endpoint" for each in found.others):
        return []
    try:
        expiries = _expiries(settings, expiry.find(aws, settings))
        component = components.find(aws, settings)
        is_own = component is not None and component.owner == aws.creator()
        own = [_component(settings, str(component))] if is_own else []
        return [*expiries, *of_scaling(aws, settings), *own]
    except NoAccountError:
        if not aws.is_dry:
            raise
        target = _target(scaling.target(settings), "")
        found_all = [*_expiries(settings, datetime.now(UTC)), target, _alarm(settings)]
        if settings.endpoint.has_component:
            found_all.append(_component(settings, f"inference component {settings.name}"))
        return found_all


def of_scaling(aws: Aws, settings: Settings) -> list[Attachment]:
    """Return autoscaling and alarm of the endpoint.

    Raises:
        UserError: AWS rejected a request.
    """
    request: Request = {
        "ServiceNamespace": scaling.target(settings)["ServiceNamespace"],
        # One is of these settings, the other perhaps of earlier ones.
        "ResourceIds": [scaling.variant_id(settings), scaling.component_id(settings)],
    }
    response = aws.query_unless(_DENIED, "DescribeScalableTargets", request, scaling.SERVICE)
    targets = response["ScalableTargets"] if response is not None else []
    found = [
        _target(each, f" from {each['MinCapacity']} to {each['MaxCapacity']} instances")
        for each in targets
    ]
    names = {"AlarmNames": [scaling.alarm_name(settings)]}
    response = aws.query_unless(_DENIED, "DescribeAlarms", names, "cloudwatch")
    alarms = response["MetricAlarms"] if response is not None else []
    return [*found, *(_alarm(settings) for _ in alarms)]


def delete(aws: Aws, settings: Settings, attachments: Iterable[Attachment]) -> None:
    """Delete them, and wait for it where the endpoint needs that.

    Raises:
        UserError: AWS rejected a request; earlier ones are done.
    """
    for each in attachments:
        aws.send(each.operation, each.request, each.service)
        if not aws.is_dry:
            if each.kind == components.NOUN:
                components.wait_until_deleted(aws, settings)
            aws.show(f"deleted {each}")


def _expiries(settings: Settings, time: datetime | None) -> Iterator[Attachment]:
    if time is not None:
        is_late = time < datetime.now(UTC)
        problem = ", which did not succeed: see aws.scheduler_role" if is_late else ""
        description = f"deletion of the endpoint on {expiry.shown(time)}{problem}"
        name = expiry.name(settings)
        yield Attachment(
            "Schedule", name, description, "DeleteSchedule", {"Name": name}, expiry.SERVICE
        )


def _target(target: Mapping[str, Any], limits: str) -> Attachment:
    keys = ("ServiceNamespace", "ResourceId", "ScalableDimension")
    return Attachment(
        "ScalableTarget",
        target["ResourceId"],
        f"autoscaling of the endpoint{limits}",
        "DeregisterScalableTarget",
        {key: target[key] for key in keys},
        scaling.SERVICE,
    )


def _component(settings: Settings, description: str) -> Attachment:
    operation, request = f"Delete{components.NOUN}", components.deletion(settings)
    return Attachment(components.NOUN, settings.name, description, operation, request, "sagemaker")


def _alarm(settings: Settings) -> Attachment:
    name = scaling.alarm_name(settings)
    request: Request = {"AlarmNames": [name]}
    return Attachment("Alarm", name, f"alarm {name}", "DeleteAlarms", request, "cloudwatch")
