"""`cost`: estimate the cost of the settings."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from image_classifier.sagemaker import prices
from image_classifier.sagemaker.prices import Prices
from image_classifier.settings.inference import Endpoint, Transform
from image_classifier.settings.schema import Settings, Training

HOURS_A_MONTH = 730


class Cost(NamedTuple):
    """A part of the costs."""

    dollars: float
    """Not a number if the price is unknown."""

    unit: str
    description: str

    least: float | None = None
    """Dollars with the least number of instances, if they are scaled."""

    def __str__(self) -> str:
        """Return a line of a table."""
        least = "" if self.least is None else f"${self.least:,.2f} to "
        price = "price unknown" if math.isnan(self.dollars) else f"{least}${self.dollars:,.2f}"
        return f"{price:>14} {self.unit:<11}{self.description}"


class Estimate(NamedTuple):
    """The costs, and the prices that they are from."""

    costs: Sequence[Cost]
    prices: Prices

    def lines(self) -> list[str]:
        """Return a table with a footnote."""
        footnote = (
            f"{self.prices.source()}, without taxes and storage on S3; a job that ends earlier "
            "costs less: see AWS's price list"
        )
        return [*map(str, self.costs), footnote]

    def document(self) -> dict[str, object]:
        """Return the same for programs; the dollars are null if the price is unknown."""
        return {
            "region": prices.REGION if self.prices.is_of_table else self.prices.region,
            "date": self.prices.date,
            "source": self.prices.source(),
            "costs": [
                cost._asdict() | {"dollars": None if math.isnan(cost.dollars) else cost.dollars}
                for cost in self.costs
            ],
        }


def estimate(settings: Settings, hours: float, priced: Prices) -> Estimate:
    """Estimate the costs of training for `hours`, of tuning and of everything that is deployed."""
    return Estimate(list(_costs(priced, settings, hours)), priced)


def _costs(priced: Prices, settings: Settings, hours: float) -> Iterator[Cost]:
    job, endpoint, transform = settings.training, settings.endpoint, settings.transform
    table = priced.table
    hourly = priced.hourly(prices.TRAINING, job.instance_type) * job.instance_count
    hourly += table["disk_gb_month"] * job.volume_gb / HOURS_A_MONTH * job.instance_count
    if job.spot:
        hourly *= table["spot_share"]
    spot = " (spot)" if job.spot else ""
    yield Cost(hourly * hours, "a job", f"training, {hours:g} h of {_instances(job)}{spot}")
    if settings.tuning is not None:
        jobs = settings.tuning.trial_count
        yield Cost(hourly * hours * jobs, "a tuning", f"tuning, at most {jobs} such jobs")
    if endpoint.kind == "serverless":
        gigabytes = endpoint.memory_mb / 1024
        # 0.1 s per request: benchmarks/README.md has measurements of other sizes.
        dollars = gigabytes * table["serverless_gb_second"] * 0.1 * 1_000_000
        description = f"serverless endpoint of {gigabytes:g} GB, at 0.1 s per request"
        yield Cost(dollars, "a million", description)
    else:
        price = priced.hourly(prices.ENDPOINT, endpoint.instance_type)
        scaling = endpoint.scaling
        if scaling is None:
            counts, of = (endpoint.instance_count,) * 2, _instances(endpoint)
        else:
            counts = (scaling.min_instances, scaling.max_instances)
            of = f"{counts[0]} to {counts[1]} x {endpoint.instance_type}"
        description = f"{endpoint.kind} endpoint, {of}, until it is deleted"
        for hours_of, unit in ((1, "an hour"), (HOURS_A_MONTH, "a month")):
            low, high = (price * count * hours_of for count in counts)
            yield Cost(high, unit, description, None if low == high else low)
    price = priced.hourly(prices.TRANSFORM, transform.instance_type) * transform.instance_count
    yield Cost(price, "an hour", f"batch transform, {_instances(transform)}")


def _instances(section: Training | Endpoint | Transform) -> str:
    return f"{section.instance_count} x {section.instance_type}"
