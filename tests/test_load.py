"""The load test of the doctor: the search for the highest rate, and its report."""

import json
import sys
from collections.abc import Callable, Mapping

import pytest

from container.classifier.errors import UserError
from image_classifier.cli import main
from image_classifier.platform.doctor.cases import SERVE
from image_classifier.platform.doctor.diagnosis import diagnose
from image_classifier.platform.doctor.examination import Options, TimeLimits
from image_classifier.platform.doctor.load_settings import parse
from image_classifier.platform.doctor.report import Report
from image_classifier.platform.load import Capacity, document, lines, search
from tests.processes import free_port
from tests.zoo import servers


@pytest.mark.parametrize("capacity", [0.4, 7, 37, 1500])
@pytest.mark.parametrize("first", [0.01, 20, 10_000])
def test_search_finds_the_highest_rate(capacity: float, first: float) -> None:
    low, high = search(lambda rate: rate <= capacity, first)

    assert low <= capacity < high
    assert high / low < 1.11


@pytest.mark.parametrize(("capacity", "expected"), [(0, (0, 0.1)), (1e6, (2000, 2000))])
def test_search_ends_at_the_limits(capacity: float, expected: tuple[float, float]) -> None:
    assert search(lambda rate: rate <= capacity, 10) == expected


def once_lucky(capacity: float) -> Callable[[float], bool]:
    """Return a server that carries each rate up to twice its capacity once."""
    seen: set[float] = set()

    def passes(rate: float) -> bool:
        is_first = rate not in seen
        seen.add(rate)
        return rate <= capacity * (2 if is_first else 1)

    return passes


def test_rate_that_passes_once_is_not_the_result() -> None:
    low, _ = search(once_lucky(37), 5)

    assert 37 / 1.3 < low <= 37


def test_result_is_extrapolated_to_vcpus() -> None:
    shown = [*lines({"": Capacity(low=220, high=242, limit=0.5, cpus=2)})]

    assert shown[0].startswith("load: p99 stays below 0.5 s at 220 requests/s, and not at 242")
    assert shown[2] == "load: an instance with 4 vCPU: about 440 to 484 requests/s"
    assert shown[4] == "load: an instance with 16 vCPU: about 1760 to 1940 requests/s"
    (never,) = lines({"": Capacity(low=0, high=0.1, limit=0.5, cpus=2)})
    assert never == "load: p99 is above 0.5 s even at 0.1 requests/s"


def examined(server: str, *settings: Mapping[str, str]) -> Report:
    """Return the report on a server of the zoo with a load test, without the slow cases."""
    return diagnose(
        None,
        [sys.executable, servers.__file__, server],
        SERVE,
        # No server is so fast, which ends the search soon.
        options=Options(port=free_port(), memory=2**30, p99=1e-9, settings=settings),
        limits=TimeLimits(load=0.01, watch=0, growth=0.2),
        ignored=("payload-size", "concurrency", "memory", "keep-alive", "sigterm"),
    )


def test_doctor_measures_a_server() -> None:
    report = examined("Healthy")

    assert json.loads(report.json())["load"]["p99_limit_seconds"] == 1e-9
    assert report.text().splitlines()[-2].startswith("load: p99 is above 1e-09 s even at 0.1")


def test_doctor_compares_settings() -> None:
    failing, slow = {"SAGEMAKER_BIND_TO_PORT": "none"}, {"WORKERS": "2", "THREADS": "4"}

    report = examined("Healthy", failing, slow)

    assert report.failed == {}, report.text()
    found = json.loads(report.json())["load"]["settings"]
    assert [each["setting"] for each in found] == [
        "",
        "SAGEMAKER_BIND_TO_PORT=none",
        "WORKERS=2,THREADS=4",
    ]
    assert found[1]["message"].startswith("not measured: the program ended before /ping returned")
    assert found[2]["low"] == 0


def test_best_setting_is_extrapolated() -> None:
    loads: dict[str, Capacity | str] = {
        "": rate(20),
        "WORKERS=2": rate(30),
        "WORKERS=9": "not measured: it ended",
    }

    shown = [*lines(loads)]

    assert shown[0].startswith("load: p99 stays below 0.5 s at 20 requests/s")
    assert shown[1].startswith("load with WORKERS=2: p99 stays below 0.5 s at 30 requests/s")
    assert shown[2:4] == [
        "load with WORKERS=9: not measured: it ended",
        "load: the best setting is WORKERS=2",
    ]
    assert shown[5] == "load: an instance with 4 vCPU: about 60 to 66 requests/s"
    assert document(loads)["setting"] == "WORKERS=2"


def rate(low: float) -> Capacity:
    return Capacity(low=low, high=1.1 * low, limit=0.5, cpus=2)


def test_setting_has_names_and_values() -> None:
    assert parse("WORKERS=2, THREADS=4") == {"WORKERS": "2", "THREADS": "4"}
    with pytest.raises(UserError, match="expected NAME=VALUE,NAME=VALUE for a setting of --load"):
        parse("WORKERS=2,THREADS")


def test_load_without_a_valid_request_is_not_measured() -> None:
    report = examined("AlwaysFails")

    assert report.loads == {
        "": "not measured: no request succeeded; give --request and --content-type"
    }


def test_load_is_for_servers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--load", "--role", "train", "--", "true"]) == 2
    assert "--load is for the roles serve and transform" in capsys.readouterr().err
