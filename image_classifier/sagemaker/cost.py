"""`cost`: estimate the cost of the settings from a dated table of prices."""

import math
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from image_classifier.settings.inference import Endpoint, Transform
from image_classifier.settings.schema import Settings, Training

PRICES = Path(__file__).with_name("prices.toml")

HOURS_A_MONTH = 730


class Cost(NamedTuple):
    """A part of the costs."""

    dollars: float
    """Not a number if the price is unknown."""

    unit: str
    description: str

    def __str__(self) -> str:
        """Return a line of a table."""
        price = "price unknown" if math.isnan(self.dollars) else f"${self.dollars:,.2f}"
        return f"{price:>14} {self.unit:<11}{self.description}"


class Estimate(NamedTuple):
    """The costs, and the date of the prices."""

    costs: Sequence[Cost]
    date: str

    def lines(self) -> list[str]:
        """Return a table with a footnote."""
        footnote = (
            f"prices of us-east-1 from the table of {self.date}, without taxes and storage on S3; "
            "a job that ends earlier costs less: see AWS's price list"
        )
        return [*map(str, self.costs), footnote]

    def document(self) -> dict[str, object]:
        """Return the same for programs; the dollars are null if the price is unknown."""
        return {
            "region": "us-east-1",
            "date": self.date,
            "costs": [
                cost._asdict() | {"dollars": None if math.isnan(cost.dollars) else cost.dollars}
                for cost in self.costs
            ],
        }


def estimate(settings: Settings, hours: float) -> Estimate:
    """Estimate the costs of training for `hours`, of tuning and of everything that is deployed."""
    prices = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    return Estimate(list(_costs(prices, settings, hours)), str(prices["date"]))


def _costs(prices: dict[str, Any], settings: Settings, hours: float) -> Iterator[Cost]:
    job, endpoint, transform = settings.training, settings.endpoint, settings.transform
    hourly = _hourly_price(prices, job)
    hourly += prices["disk_gb_month"] * job.volume_gb / HOURS_A_MONTH * job.instance_count
    if job.spot:
        hourly *= prices["spot_share"]
    spot = " (spot)" if job.spot else ""
    yield Cost(hourly * hours, "a job", f"training, {hours:g} h of {_instances(job)}{spot}")
    if settings.tuning is not None:
        jobs = settings.tuning.trial_count
        yield Cost(hourly * hours * jobs, "a tuning", f"tuning, at most {jobs} such jobs")
    if endpoint.kind == "serverless":
        gigabytes = endpoint.memory_mb / 1024
        # 0.1 s per request: benchmarks/README.md has measurements of other sizes.
        dollars = gigabytes * prices["serverless_gb_second"] * 0.1 * 1_000_000
        description = f"serverless endpoint of {gigabytes:g} GB, at 0.1 s per request"
        yield Cost(dollars, "a million", description)
    else:
        price = _hourly_price(prices, endpoint)
        description = f"{endpoint.kind} endpoint, {_instances(endpoint)}, until it is deleted"
        yield Cost(price, "an hour", description)
        yield Cost(price * HOURS_A_MONTH, "a month", description)
    yield Cost(
        _hourly_price(prices, transform), "an hour", f"batch transform, {_instances(transform)}"
    )


def _instances(section: Training | Endpoint | Transform) -> str:
    return f"{section.instance_count} x {section.instance_type}"


def _hourly_price(prices: dict[str, Any], section: Training | Endpoint | Transform) -> float:
    """Return the price of the instances; not a number if the table lacks their type."""
    found = (table["instances"].get(section.instance_type) for table in prices["lists"])
    return next(filter(None, found), math.nan) * section.instance_count
