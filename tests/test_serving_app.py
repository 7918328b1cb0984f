"""The HTTP side with a predictor of the test's own."""

import io
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from classifier.errors import UserError
from classifier.preprocessing import Pixels, Preprocessing
from serving import app
from serving.app import create_app
from serving.encoding import Probabilities
from serving.limits import usable_memory, usable_processors
from serving.predictor import Predictor
from serving.settings import MIB, Settings
from tests.artifacts import encode, random_pixels

PNG = encode(random_pixels())


def even(images: Pixels) -> Probabilities:
    return np.full((len(images), 2), 0.5, np.float32)


def client_of(
    infer: Callable[[Pixels], Probabilities], settings: Settings | None = None
) -> FlaskClient:
    loading: Future[Predictor] = Future()
    loading.set_result(
        Predictor(class_names=("a", "b"), preprocessing=Preprocessing(image_size=32), infer=infer)
    )
    return create_app(loading, settings or Settings()).test_client()


def invoke(client: FlaskClient) -> tuple[int, dict[str, str]]:
    response = client.post("/invocations", data=PNG, content_type="image/png")
    document = response.get_json()
    return response.status_code, document.get("error", {})


def test_a_fault_of_ours_is_500_without_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_images: Pixels) -> Probabilities:
        message = "secret"
        raise RuntimeError(message)

    status, error = invoke(client_of(fail))

    assert status == 500
    assert error["code"] == "internal_server_error"
    assert "secret" not in str(error)
    assert "secret" in caplog.text


def test_nan_is_never_an_answer() -> None:
    status, error = invoke(client_of(lambda images: even(images) * np.float32("nan")))

    assert status == 500
    assert error["code"] == "internal_server_error"


def test_beyond_the_places_a_request_is_refused_at_once_and_ping_still_answers() -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait(images: Pixels) -> Probabilities:
        entered.set()
        leave.wait()
        return even(images)

    client = client_of(wait, Settings(max_requests=1))
    first = threading.Thread(target=invoke, args=(client,))
    first.start()
    entered.wait()

    refused = client.post("/invocations", data=PNG, content_type="image/png")
    ping = client.get("/ping")
    leave.set()
    first.join()

    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert ping.status_code == 200
    assert invoke(client)[0] == 200


def test_a_client_that_stalls_in_its_body_is_told_so() -> None:
    class Stalling(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            raise TimeoutError

    response = client_of(even).post(
        "/invocations", input_stream=Stalling(), content_type="image/png"
    )

    assert response.status_code == 408
    assert response.get_json()["error"]["message"].startswith("nothing more of the body came")


@pytest.mark.parametrize(
    ("workers", "processors", "memory", "threads"),
    [(1, 8, 64, 9), (4, 8, 64, 3), (16, 8, 64, 1), (1, 8, 4, 4), (2, 8, 4, 2), (4, 8, 4, 1)],
)
def test_workers_share_the_processors_and_the_memory(
    monkeypatch: pytest.MonkeyPatch, workers: int, processors: int, memory: int, threads: int
) -> None:
    monkeypatch.setattr(app, "usable_processors", lambda: processors)
    monkeypatch.setattr(app, "usable_memory", lambda: memory * 1024 * MIB)

    assert app._threads(workers) == threads


def test_a_refused_request_frees_its_place() -> None:
    client = client_of(even, Settings(max_requests=1))

    for _ in range(3):
        assert client.post("/invocations", data=b"x").status_code == 422

    assert invoke(client)[0] == 200


def test_405_names_the_method_that_is_allowed() -> None:
    response = client_of(even).get("/invocations")

    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        ({}, "port", 8080),
        ({"SAGEMAKER_BIND_TO_PORT": "9000"}, "port", 9000),
        ({"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}, "workers", 2),
        ({}, "timeout_seconds", 60),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "7"}, "timeout_seconds", 7),
        (
            {
                "SAGEMAKER_MODEL_SERVER_TIMEOUT": "7",
                "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "8",
            },
            "timeout_seconds",
            8,
        ),
        ({"SAGEMAKER_BATCH": "true"}, "timeout_seconds", 3600),
        ({}, "max_body_bytes", 25 * MIB),
        ({"SAGEMAKER_BATCH": "True"}, "max_body_bytes", 100 * MIB),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}, "max_body_bytes", 25 * MIB),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}, "max_body_bytes", MIB),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "50"}, "transform_payload_mb", 50),
        ({"SAGEMAKER_BATCH": "True"}, "has_execution_parameters", False),
        ({"SAGEMAKER_BATCH": "true"}, "has_execution_parameters", True),
        ({"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}, "default_accept", "text/csv"),
    ],
)
def test_settings_come_from_the_environment(
    variables: dict[str, str], name: str, value: object
) -> None:
    assert getattr(Settings.from_environment(variables), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "http"),
        ("SAGEMAKER_BIND_TO_PORT", "0"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "-1"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "image/png"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"{name} must be .* got '{value}'"):
        Settings.from_environment({name: value})


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "900000 1000"}, None),
        ({"cpu.max": "garbage"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "60000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_the_cpu_quota_limits_the_processors(
    tmp_path: Path, files: dict[str, str], processors: int | None
) -> None:
    unlimited = usable_processors(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")

    assert usable_processors(tmp_path) == (processors or unlimited)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_memory_limit_is_the_cgroups(tmp_path: Path, name: str) -> None:
    unlimited = usable_memory(tmp_path)
    (tmp_path / "memory").mkdir()

    (tmp_path / name).write_text("max\n")
    assert usable_memory(tmp_path) == unlimited
    (tmp_path / name).write_text(f"{2**63}\n")
    assert usable_memory(tmp_path) == unlimited
    (tmp_path / name).write_text(f"{2**20}\n")
    assert usable_memory(tmp_path) == 2**20
