"""Prices per hour: of AWS's Price List API, or else of the table `prices.toml`."""

import json
import math
import tomllib
from pathlib import Path
from typing import Any

from botocore.parsers import ResponseParserError

from container.classifier.errors import UserError
from image_classifier.sagemaker.aws import Aws
from image_classifier.settings import service_model

PRICES = Path(__file__).with_name("prices.toml")

# The table's region.
REGION = "us-east-1"

# What an instance is used for, as the API names it in `component`.
ENDPOINT, TRAINING, TRANSFORM, PROCESSING = "Hosting", "Training", "Batch Transform", "Processing"


class Prices:
    """Prices of instances in a region. The API is called for those that are read."""

    def __init__(self, aws: Aws) -> None:
        """Read the table, and name the region."""
        self._aws = aws
        self.region = aws.region or service_model.configured_region() or REGION
        self.table: dict[str, Any] = tomllib.loads(PRICES.read_text(encoding="utf-8"))
        self._read: dict[tuple[str, str], tuple[float, str]] = {}
        self._reason = ""

    def hourly(self, use: str, instance_type: str) -> float:
        """Return dollars an hour of one instance; not a number if the price is unknown."""
        key = use, instance_type
        if key not in self._read:
            found = None if self._reason else self._ask(use, instance_type)
            self._read[key] = found or (self._of_table(instance_type), "")
        return self._read[key][0]

    @property
    def date(self) -> str:
        """The date of the prices that were read."""
        return max((date for _, date in self._read.values()), default="") or str(self.table["date"])

    @property
    def is_of_table(self) -> bool:
        """Whether all instances have prices of the table."""
        return not any(date for _, date in self._read.values())

    def source(self) -> str:
        """Return where the prices that were read come from."""
        others = f" (those of {self.region} differ)" if self.region != REGION else ""
        of_table = f"prices of {REGION}{others} from the table of {self.table['date']}"
        if self.is_of_table:
            return f"{of_table} ({self._reason or 'the Price List API has none of them'})"
        lacking = sorted({kind for (_, kind), (_, date) in self._read.items() if not date})
        source = f"prices of {self.region} from AWS's Price List API of {self.date}"
        return f"{source}, for {', '.join(lacking)} {of_table}" if lacking else source

    def _of_table(self, instance_type: str) -> float:
        found = (listed["instances"].get(instance_type) for listed in self.table["lists"])
        return float(next(filter(None, found), math.nan))

    def _ask(self, use: str, instance_type: str) -> tuple[float, str] | None:
        """Return price and date of the API, or None."""
        wanted = {
            "productFamily": "ML Instance",
            "regionCode": self.region,
            "instanceName": instance_type,
        }
        filters = [
            {"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()
        ]
        request = {"ServiceCode": "AmazonSageMaker", "Filters": filters}
        try:
            for page in self._aws.pages("GetProducts", request, "pricing"):
                for text in page["PriceList"]:
                    if found := _price(json.loads(text), use):
                        return found
        except (UserError, ResponseParserError) as error:
            self._reason = f"the Price List API was not read: {error}"
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            self._reason = f"the Price List API has another format: {type(error).__name__} {error}"
        return None


def _price(product: dict[str, Any], use: str) -> tuple[float, str] | None:
    """Return the price of a product on demand and its date, or None if it is for another use."""
    attributes = product["product"]["attributes"]
    names = {attributes.get("component"), attributes.get("platoinstancetype")}
    if use.replace(" ", "") not in {name.replace(" ", "") for name in names if name}:
        return None
    for term in product["terms"]["OnDemand"].values():
        for dimension in term["priceDimensions"].values():
            dollars = float(dimension["pricePerUnit"].get("USD", 0))
            # Free tiers are products of their own.
            if dollars > 0:
                return dollars, str(product["publicationDate"])[:10]
    return None
