"""Prices of the Price List API and of the table; what runs and what it has cost so far."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.prices import ENDPOINT, TRAINING, Prices
from tests.accounts import MODEL, ON_ACCOUNT, StandIn, backend, run
from tests.settings_files import write

pytestmark = ON_ACCOUNT

INSTANCE = '[endpoint]\ninstance_type = "ml.m5.large"\ninstance_count = 2\n'


def product(component: str, dollars: str, name: str = "component") -> str:
    """Return an entry of the price list."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": dollars}}
    return json.dumps(
        {
            "product": {"productFamily": "ML Instance", "attributes": {name: component}},
            "serviceCode": "AmazonSageMaker",
            "terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}},
            "publicationDate": "2026-11-20T18:00:00Z",
        }
    )


PRODUCTS = [
    product("Studio-Notebook", "9"),
    product("Training", "0.2"),
    product("Hosting", "0"),
    product("Hosting", "0.15"),
    product("BatchTransform", "0.3", "platoinstancetype"),
]


def test_prices_are_those_of_the_region_and_the_use(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.answer("pricing.GetProducts", {"PriceList": PRODUCTS})
    settings = write(tmp_path, f'{INSTANCE}[training]\ninstance_type = "ml.m5.large"\n')

    assert run("cost", settings, "--json") == 0

    document = json.loads(capsys.readouterr().out)
    assert (document["region"], document["date"]) == ("eu-west-1", "2026-11-20")
    job, hour, _, transform = (each["dollars"] for each in document["costs"])
    assert job == pytest.approx(0.2 + 30 * 0.14 / 730)
    assert (hour, transform) == pytest.approx((0.3, 0.3))
    sent = stand_in.sent("GetProducts")
    assert len(sent) == 3
    filters = {each["Field"]: each["Value"] for each in sent[0]["Filters"]}
    assert filters == {
        "productFamily": "ML Instance",
        "regionCode": "eu-west-1",
        "instanceName": "ml.m5.large",
    }
    assert run("cost", settings) == 0
    footnote = "prices of eu-west-1 from AWS's Price List API of 2026-11-20, without taxes"
    assert footnote in capsys.readouterr().out


def test_unlisted_instance_has_the_price_of_the_table(stand_in: StandIn) -> None:
    stand_in.answer("pricing.GetProducts", {"PriceList": PRODUCTS}, {"PriceList": []})
    prices = Prices(Aws(region="eu-west-1"))

    assert prices.hourly(TRAINING, "ml.p9.large") == 0.2
    assert prices.hourly(ENDPOINT, "ml.m5.large") == 0.115
    assert "Price List API of 2026-11-20, for ml.m5.large prices of us-east-1" in prices.source()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("AccessDeniedException", "the Price List API was not read: AWS rejected GetProducts: Acc"),
        ({"PriceList": ["{}"]}, "the Price List API has another format: KeyError 'product'"),
        ({"PriceList": ["["]}, "the Price List API has another format: JSONDecodeError Expecting"),
        ({"PriceList": ["[]"]}, "the Price List API has another format: TypeError list indices"),
        ({"PriceList": []}, "the Price List API has none of them"),
    ],
)
def test_table_is_used_with_the_reason(
    answer: Any,  # noqa: ANN401 - a document or an error's code
    reason: str,
    stand_in: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_in.answer("pricing.GetProducts", answer)

    assert run("cost", write(tmp_path, INSTANCE)) == 0

    printed = capsys.readouterr().out
    assert "$0.23 an hour" in printed
    assert "prices of us-east-1 (those of eu-west-1 differ) from the table" in printed
    assert f"from the table of 2026-11-29 ({reason}" in printed
    assert len(stand_in.sent("GetProducts")) == (3 if answer == {"PriceList": []} else 1)


def test_cost_of_a_scaled_endpoint_is_a_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaling = "[endpoint.scaling]\nmin_instances = 1\nmax_instances = 4\n"

    assert run("cost", write(tmp_path, INSTANCE + scaling)) == 0

    expected = "$0.12 to $0.46 an hour    real-time endpoint, 1 to 4 x ml.m5.large, until"
    assert expected in capsys.readouterr().out


def test_status_warns_of_what_runs_and_what_it_has_cost(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.answer("pricing.GetProducts", {"PriceList": PRODUCTS})
    settings = write(tmp_path, INSTANCE)
    assert run("train", settings) == 0
    assert run("deploy", settings, "--job", MODEL) == 0
    now = datetime.now(UTC)
    backend().endpoints["hands"].creation_time = (now - timedelta(hours=10)).isoformat()
    (job,) = backend().training_jobs.values()
    job.training_job_status = "InProgress"
    job.training_start_time = (now - timedelta(minutes=30)).isoformat()
    capsys.readouterr()

    assert run("status", settings) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "endpoint hands (InService)" in lines
    started = f"{now - timedelta(hours=10):%Y-%m-%d %H:%M} UTC"
    assert (
        "endpoint hands costs $0.30 an hour, about $3.00 so far at this size: 2 x ml.m5.large "
        f"since {started}"
    ) in lines
    assert any("costs $0.20 an hour, about $0.10 so far at this size: 1 x" in e for e in lines)
    assert lines[-1] == "prices of eu-west-1 from AWS's Price List API of 2026-11-20"

    assert run("status", settings, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    (cost,) = (each["cost"] for each in document if each["kind"] == "Endpoint")
    assert cost["dollars_an_hour"] == pytest.approx(0.3)
    assert cost["dollars_so_far"] == pytest.approx(3.0, abs=0.01)
    assert (cost["instance_type"], cost["instance_count"]) == ("ml.m5.large", 2)
    job.enable_managed_spot_training = True
    assert run("status", settings) == 0
    assert "costs $0.08 an hour, about $0.04 so far" in capsys.readouterr().out


def test_status_shows_instances_that_are_kept_warm(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.answer("pricing.GetProducts", {"PriceList": PRODUCTS})
    settings = write(tmp_path, "[training]\nkeep_alive_minutes = 30\n")
    assert run("train", settings, "--set", "training.instance_type=ml.m5.large") == 0
    (job,) = backend().training_jobs.values()
    end = datetime.now(UTC) - timedelta(minutes=15)
    job.training_end_time = end.isoformat()
    capsys.readouterr()

    assert run("status", settings) == 0

    until = f"kept warm until {end + timedelta(minutes=30):%Y-%m-%d %H:%M} UTC at the latest"
    assert until in capsys.readouterr().out
    assert run("status", settings, "--json") == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert document["cost"]["dollars_so_far"] == pytest.approx(0.05, abs=0.01)
    assert document["cost"]["warm_until"].startswith(
        f"{end + timedelta(minutes=30):%Y-%m-%dT%H:%M}"
    )
    job.training_end_time = (end - timedelta(minutes=20)).isoformat()
    assert run("status", settings) == 0
    assert "warm" not in capsys.readouterr().out


def test_status_of_what_costs_nothing_reads_no_prices(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.answer("pricing.GetProducts", "AccessDeniedException")
    settings = write(tmp_path, '[endpoint]\nkind = "serverless"\n')
    assert run("train", settings) == 0
    assert run("deploy", settings, "--job", MODEL) == 0
    capsys.readouterr()

    assert run("status", settings) == 0

    assert "$" not in capsys.readouterr().out
    assert stand_in.sent("GetProducts") == []


def test_status_of_an_instance_without_a_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, '[endpoint]\ninstance_type = "ml.m4.16xlarge"\n')
    assert run("deploy", settings, "--job", MODEL) == 0
    capsys.readouterr()

    assert run("status", settings) == 0
    printed = capsys.readouterr().out
    assert "endpoint hands costs money: 1 x ml.m4.16xlarge since " in printed
    assert "from the table of 2026-11-29 (the Price List API was not read: GetProducts:" in printed
    assert run("status", settings, "--json") == 0
    assert '"dollars_an_hour": null' in capsys.readouterr().out
