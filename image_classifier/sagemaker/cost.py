"""`cost`: estimate the cost of the settings from a dated table of prices."""

import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image_classifier.settings.schema import Settings
from image_classifier.settings.tuning import Tuning

PRICES = Path(__file__).with_name("prices.toml")

HOURS_A_MONTH = 730


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an estimate."""

    description: str
    dollars: float
    """Not a number if the table lacks the instance type."""
    unit: str

    def __str__(self) -> str:
        """Return a line of text."""
        price = "price unknown" if math.isnan(self.dollars) else f"${self.dollars:,.2f}"
        return f"{price:>14} {self.unit:<11}{self.description}"


def estimate(settings: Settings, hours: float) -> Iterator[Item]:
    """Yield the costs of training for `hours`, of tuning and of the endpoint."""
    prices = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    job, endpoint = settings.training, settings.endpoint
    hour = _hour(prices, job.instance_type, job.instance_count)
    hour += prices["disk_gb_month"] * job.volume_gb / HOURS_A_MONTH * job.instance_count
    if job.spot:
        hour *= prices["spot_share"]
    instances = f"{job.instance_count} x {job.instance_type}{' (spot)' if job.spot else ''}"
    yield Item(f"training, {hours:g} h of {instances}", hour * hours, "a job")
    if settings.tuning is not None:
        jobs = _jobs(settings.tuning)
        description = f"tuning, at most {jobs} such jobs"
        yield Item(description, hour * hours * jobs, "a tuning")
    if endpoint.kind == "serverless":
        gigabytes = endpoint.memory_mb / 1024
        # 0.1 s per request: benchmarks/README.md has measurements of other sizes.
        dollars = gigabytes * prices["serverless_gb_second"] * 0.1 * 1_000_000
        description = f"serverless endpoint of {gigabytes:g} GB, at 0.1 s per request"
        yield Item(description, dollars, "a million")
    else:
        price = _hour(prices, endpoint.instance_type, endpoint.instance_count)
        instances = f"{endpoint.instance_count} x {endpoint.instance_type}"
        description = f"{endpoint.kind} endpoint, {instances}, until it is deleted"
        yield Item(description, price, "an hour")
        yield Item(description, price * HOURS_A_MONTH, "a month")
    transform = settings.transform
    price = _hour(prices, transform.instance_type, transform.instance_count)
    instances = f"{transform.instance_count} x {transform.instance_type}"
    yield Item(f"batch transform, {instances}", price, "an hour")


def footnote() -> str:
    """Return the date of the prices, and what they include."""
    prices = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    return (
        f"prices of us-east-1 from the table of {prices['date']}, without taxes and storage on S3; "
        "a job that ends earlier costs less: see AWS's price list"
    )


def _jobs(tuning: Tuning) -> int:
    if tuning.strategy == "Grid":
        return math.prod(len(each.values) for each in tuning.ranges.values())
    return tuning.jobs


def _hour(prices: dict[str, Any], instance_type: str, count: int) -> float:
    found = (each["instances"].get(instance_type) for each in prices["lists"])
    return next(filter(None, found), math.nan) * count
