"""`deploy --expires`: a schedule of EventBridge Scheduler deletes the endpoint once."""

import json
from datetime import UTC, datetime, timedelta

from container.classifier.errors import UserError
from image_classifier.sagemaker.aws import Aws
from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request

SERVICE = "scheduler"

NEVER = timedelta(0)

_EXPRESSION = "at(%Y-%m-%dT%H:%M:%S)"

# Policies of earlier versions do not permit reading schedules; such users have none.
_NONE = frozenset({"ResourceNotFoundException", "AccessDeniedException"})


def name(settings: Settings) -> str:
    """Return the name of the schedule."""
    return f"{settings.name}-expiry"


def schedule(settings: Settings, time: datetime) -> Request:
    """Return CreateSchedule, which is the same as UpdateSchedule."""
    role = settings.aws.scheduler_role
    # Others than `aws` are those of China and of GovCloud.
    partition = role.split(":")[1]
    return {
        "Name": name(settings),
        "ScheduleExpression": time.astimezone(UTC).strftime(_EXPRESSION),
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            # The universal target: any call of the API.
            "Arn": f"arn:{partition}:scheduler:::aws-sdk:sagemaker:deleteEndpoint",
            "RoleArn": role,
            "Input": json.dumps({"EndpointName": settings.name}),
        },
    }


def find(aws: Aws, settings: Settings) -> datetime | None:
    """Return when the endpoint is deleted, or None if no schedule does this.

    Raises:
        UserError: AWS rejected the request.
    """
    response = aws.query_unless(_NONE, "GetSchedule", {"Name": name(settings)}, SERVICE)
    if response is None:
        return None
    expression = str(response["ScheduleExpression"])
    try:
        return datetime.strptime(expression, _EXPRESSION).replace(tzinfo=UTC)
    except ValueError:
        raise UserError(
            f"the schedule {name(settings)} has the expression {expression}, not a time: delete it "
            "in EventBridge Scheduler"
        ) from None


def settle(aws: Aws, settings: Settings, expires: timedelta | None, *, is_new: bool) -> None:
    """Create or move the schedule of an endpoint; remove what an earlier endpoint has left.

    `expires` is the time from now on, or NEVER; None keeps the schedule of an existing endpoint.

    Raises:
        UserError: AWS rejected a request.
    """
    current = None if aws.is_dry else find(aws, settings)
    if expires:
        time = datetime.now(UTC) + expires
        operation = "CreateSchedule" if current is None else "UpdateSchedule"
        aws.send(operation, schedule(settings, time), SERVICE)
        aws.show(f"the endpoint {settings.name} is deleted on {shown(time)}")
    elif (expires == NEVER and (current or aws.is_dry)) or (current and is_new):
        aws.send("DeleteSchedule", {"Name": name(settings)}, SERVICE)
    elif current:
        aws.show(f"the endpoint {settings.name} is still deleted on {shown(current)}")


def shown(time: datetime) -> str:
    """Return a time for messages."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
