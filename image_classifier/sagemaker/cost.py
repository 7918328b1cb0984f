"""`cost`: estimate the cost of the settings from a dated table of prices."""

import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from image_classifier.settings.inference import Endpoint, Transform
from image_classifier.settings.schema import Settings, Training

PRICES = Path(__file__).with_name("prices.toml")

HOURS_A_MONTH = 730


def estimate(settings: Settings, hours: float) -> Iterator[str]:
    """Yield lines: the costs of training for `hours`, of tuning and others, and a footnote."""
    prices = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    job, endpoint, transform = settings.training, settings.endpoint, settings.transform
    hourly = _hourly_price(prices, job)
    hourly += prices["disk_gb_month"] * job.volume_gb / HOURS_A_MONTH * job.instance_count
    if job.spot:
        hourly *= prices["spot_share"]
    spot = " (spot)" if job.spot else ""
    yield _line(hourly * hours, "a job", f"training, {hours:g} h of {_instances(job)}{spot}")
    if settings.tuning is not None:
        jobs = settings.tuning.trial_count
        yield _line(hourly * hours * jobs, "a tuning", f"tuning, at most {jobs} such jobs")
    if endpoint.kind == "serverless":
        gigabytes = endpoint.memory_mb / 1024
        # 0.1 s per request: benchmarks/README.md has measurements of other sizes.
        dollars = gigabytes * prices["serverless_gb_second"] * 0.1 * 1_000_000
        description = f"serverless endpoint of {gigabytes:g} GB, at 0.1 s per request"
        yield _line(dollars, "a million", description)
    else:
        price = _hourly_price(prices, endpoint)
        description = f"{endpoint.kind} endpoint, {_instances(endpoint)}, until it is deleted"
        yield _line(price, "an hour", description)
        yield _line(price * HOURS_A_MONTH, "a month", description)
    yield _line(
        _hourly_price(prices, transform), "an hour", f"batch transform, {_instances(transform)}"
    )
    yield (
        f"prices of us-east-1 from the table of {prices['date']}, without taxes and storage on S3; "
        "a job that ends earlier costs less: see AWS's price list"
    )


def _line(dollars: float, unit: str, description: str) -> str:
    price = "price unknown" if math.isnan(dollars) else f"${dollars:,.2f}"
    return f"{price:>14} {unit:<11}{description}"


def _instances(section: Training | Endpoint | Transform) -> str:
    return f"{section.instance_count} x {section.instance_type}"


def _hourly_price(prices: dict[str, Any], section: Training | Endpoint | Transform) -> float:
    """Return the price of the instances; not a number if the table lacks their type."""
    found = (table["instances"].get(section.instance_type) for table in prices["lists"])
    return next(filter(None, found), math.nan) * section.instance_count
