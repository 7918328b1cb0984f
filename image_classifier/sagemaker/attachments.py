"""What belongs to the endpoint outside SageMaker: its schedule, autoscaling and alarm."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from image_classifier.sagemaker import expiry, scaling
from image_classifier.sagemaker.aws import Aws, NoAccountError
from image_classifier.sagemaker.resources import Found
from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request

# Users with the policies of earlier versions may not read these, and have none.
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
        time = expiry.find(aws, settings)
        return [*_expiries(settings, time), *of_scaling(aws, settings)]
    except NoAccountError:
        if not aws.is_dry:
            raise
        time = datetime.now(UTC)
        return [*_expiries(settings, time), _target(settings, ""), _alarm(settings)]


def of_scaling(aws: Aws, settings: Settings) -> list[Attachment]:
    """Return autoscaling and alarm of the endpoint.

    Raises:
        UserError: AWS rejected a request.
    """
    target = scaling.target(settings)
    request: Request = {
        "ServiceNamespace": target["ServiceNamespace"],
        "ScalableDimension": target["ScalableDimension"],
        "ResourceIds": [target["ResourceId"]],
    }
    answer = aws.query_unless(_DENIED, "DescribeScalableTargets", request, scaling.SERVICE)
    targets = answer["ScalableTargets"] if answer is not None else []
    found = [
        _target(settings, f" from {each['MinCapacity']} to {each['MaxCapacity']} instances")
        for each in targets
    ]
    names = {"AlarmNames": [scaling.alarm_name(settings)]}
    answer = aws.query_unless(_DENIED, "DescribeAlarms", names, "cloudwatch")
    alarms = answer["MetricAlarms"] if answer is not None else []
    return [*found, *(_alarm(settings) for _ in alarms)]


def delete(aws: Aws, attachments: Iterable[Attachment]) -> None:
    """Delete them.

    Raises:
        UserError: AWS rejected a request; earlier ones are done.
    """
    for each in attachments:
        aws.send(each.operation, each.request, each.service)
        if not aws.is_dry:
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


def _target(settings: Settings, limits: str) -> Attachment:
    target = scaling.target(settings)
    return Attachment(
        "ScalableTarget",
        target["ResourceId"],
        f"autoscaling of the endpoint{limits}",
        "DeregisterScalableTarget",
        {**target},
        scaling.SERVICE,
    )


def _alarm(settings: Settings) -> Attachment:
    name = scaling.alarm_name(settings)
    request: Request = {"AlarmNames": [name]}
    return Attachment("Alarm", name, f"alarm {name}", "DeleteAlarms", request, "cloudwatch")
