"""What costs money now: running jobs, warm pools and the endpoint, with prices and cost so far."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from image_classifier.sagemaker import prices
from image_classifier.sagemaker.aws import Aws, Response
from image_classifier.sagemaker.expiry import shown
from image_classifier.sagemaker.prices import Prices
from image_classifier.sagemaker.resources import KINDS, Resource

# Jobs with the fields of their descriptions: the instances, when they started. A tuning job costs
# what its training jobs cost.
_JOBS: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "TrainingJob": (prices.TRAINING, ("ResourceConfig",), "TrainingStartTime"),
    "TransformJob": (prices.TRANSFORM, ("TransformResources",), "TransformStartTime"),
    "ProcessingJob": (
        prices.PROCESSING,
        ("ProcessingResources", "ClusterConfig"),
        "ProcessingStartTime",
    ),
}


# Statuses of endpoints that have instances.
_SERVING = frozenset({"InService", "Updating", "SystemUpdating", "RollingBack"})


class Running(NamedTuple):
    """A job or an endpoint with instances."""

    resource: Resource
    instance_type: str
    instances: int
    since: datetime
    hourly: float
    """Dollars an hour of all instances; not a number if the price is unknown."""

    warm_until: datetime | None = None
    """When the instances of a finished training job end; None for what runs."""

    @property
    def so_far(self) -> float:
        """Dollars since the start, for as many instances as now."""
        return self.hourly * (datetime.now(UTC) - self.since).total_seconds() / 3600

    def __str__(self) -> str:
        """Return a warning."""
        name = f"{KINDS[self.resource.noun]} {self.resource.name}"
        what = f"{self.instances} x {self.instance_type} since {shown(self.since)}"
        if self.warm_until is not None:
            what += f", kept warm until {shown(self.warm_until)} at the latest"
        if math.isnan(self.hourly):
            return f"{name} costs money: {what}, price unknown"
        so_far = f"about ${self.so_far:,.2f} so far at this size"
        return f"{name} costs ${self.hourly:,.2f} an hour, {so_far}: {what}"

    def document(self) -> dict[str, object]:
        """Return the same for programs; dollars are null if the price is unknown."""
        is_known = not math.isnan(self.hourly)
        return {
            "instance_type": self.instance_type,
            "instance_count": self.instances,
            "since": self.since.isoformat(timespec="seconds"),
            "warm_until": self.warm_until and self.warm_until.isoformat(timespec="seconds"),
            "dollars_an_hour": self.hourly if is_known else None,
            "dollars_so_far": round(self.so_far, 4) if is_known else None,
        }


def find(aws: Aws, found: Iterable[Resource], priced: Prices) -> list[Running]:
    """Return those resources that have instances.

    Raises:
        UserError: AWS rejected a request.
    """
    running, finished = [], []
    for resource in found:
        if resource.noun == "Endpoint" and resource.status in _SERVING:
            running.append(_endpoint(aws, resource, priced))
        elif resource.noun in _JOBS and resource.status in {"InProgress", "Stopping"}:
            running.append(_job(aws, resource, priced))
        elif resource.noun == "TrainingJob":
            finished.append(resource)
    return [one for one in running if one is not None] + _warm_pools(aws, finished, priced)


def _warm_pools(aws: Aws, finished: Sequence[Resource], priced: Prices) -> list[Running]:
    """Return the jobs whose instances wait for another job."""
    request = {"WarmPoolStatusEquals": "Available"}
    pages = aws.pages("ListTrainingJobs", request) if finished else ()
    names = {job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]}
    warm = []
    for resource in finished:
        if resource.name not in names:
            continue
        response = aws.query("DescribeTrainingJob", {"TrainingJobName": resource.name})
        described, end = response["ResourceConfig"], response.get("TrainingEndTime")
        seconds = described.get("KeepAlivePeriodInSeconds", 0)
        # The status can be late.
        if end is not None and (until := end + timedelta(seconds=seconds)) > datetime.now(UTC):
            one = _running(resource, described, end, prices.TRAINING, priced)
            warm.append(one._replace(warm_until=until))
    return warm


def _job(aws: Aws, resource: Resource, priced: Prices) -> Running | None:
    use, path, start = _JOBS[resource.noun]
    name = {f"{resource.noun}Name": resource.name}
    response = aws.query(f"Describe{resource.noun}", name)
    described: Any = response
    for key in path:
        described = described.get(key) or {}
    since = response.get(start)
    if since is None or "InstanceType" not in described:
        # It waits for instances.
        return None
    running = _running(resource, described, since, use, priced)
    if not response.get("EnableManagedSpotTraining"):
        return running
    return running._replace(hourly=running.hourly * priced.table["spot_share"])


def _endpoint(aws: Aws, resource: Resource, priced: Prices) -> Running | None:
    response = aws.query("DescribeEndpoint", {"EndpointName": resource.name})
    config = {"EndpointConfigName": response["EndpointConfigName"]}
    variant = aws.query("DescribeEndpointConfig", config)["ProductionVariants"][0]
    if "InstanceType" not in variant:
        # Serverless.
        return None
    now = (response.get("ProductionVariants") or [{}])[0]
    count = now.get("CurrentInstanceCount", variant.get("InitialInstanceCount", 1))
    described = {"InstanceType": variant["InstanceType"], "InstanceCount": count}
    return _running(resource, described, response["CreationTime"], prices.ENDPOINT, priced)


def _running(
    resource: Resource, described: Response, since: datetime, use: str, priced: Prices
) -> Running:
    kind, count = str(described["InstanceType"]), int(described.get("InstanceCount", 1))
    return Running(resource, kind, count, since, priced.hourly(use, kind) * count)
