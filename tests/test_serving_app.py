"""The HTTP application with a fake predictor, and the settings."""

import io
import json
import logging
import re
import threading
from concurrent.futures import Future

import numpy as np
import pytest
from flask.testing import FlaskClient

from container.classifier.errors import UserError
from container.classifier.preprocessing import Pixels, Preprocessing
from container.serving.http.app import RESPONSE_CHUNK_BYTES, create_app
from container.serving.model.outcome import Probabilities
from container.serving.model.pool import Pool
from container.serving.model.predictor import Infer, Predictor
from container.serving.settings import MIB, Settings
from tests.artifacts import encode
from tests.bodies import PNG, instances


def even(image: Pixels, *, is_idle: bool) -> Probabilities:
    assert image.shape == (32, 32, 3)
    assert isinstance(is_idle, bool)
    return np.full(2, 0.5, np.float32)


def client_of(infer: Infer, settings: Settings | None = None, *, images: int = 2) -> FlaskClient:
    loading: Future[Predictor] = Future()
    loading.set_result(
        Predictor(class_names=("a", "b"), preprocessing=Preprocessing(image_size=32), infer=infer)
    )
    return create_app(loading, settings or Settings(), Pool(images)).test_client()


def invoke(client: FlaskClient) -> tuple[int, dict[str, str]]:
    response = client.post("/invocations", data=PNG, content_type="image/png")
    document = response.get_json()
    return response.status_code, document.get("error", {})


def test_internal_error_is_500_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    def fail(image: Pixels, *, is_idle: bool) -> Probabilities:  # noqa: ARG001  signature of Infer
        message = "secret"
        raise RuntimeError(message)

    status, error = invoke(client_of(fail))

    assert status == 500
    assert error["code"] == "internal_server_error"
    assert "secret" not in str(error)
    assert "secret" in caplog.text


def test_nan_is_an_internal_error() -> None:
    def not_a_number(image: Pixels, *, is_idle: bool) -> Probabilities:
        return even(image, is_idle=is_idle) * np.float32("nan")

    status, error = invoke(client_of(not_a_number))

    assert status == 500
    assert error["code"] == "internal_server_error"


def test_request_that_waits_too_long_is_rejected_and_never_predicted() -> None:
    entered, leave = threading.Event(), threading.Event()
    predicted = []

    def wait(image: Pixels, *, is_idle: bool) -> Probabilities:
        predicted.append(image)
        entered.set()
        leave.wait()
        return even(image, is_idle=is_idle)

    client = client_of(wait, Settings(wait_seconds=0), images=1)
    waiting = client_of(wait, Settings(wait_seconds=60), images=1)
    first = threading.Thread(target=invoke, args=(waiting,))
    first.start()
    entered.wait()

    rejected = client.post("/invocations", data=PNG, content_type="image/png")
    ping = client.get("/ping")
    leave.set()
    first.join()

    assert rejected.status_code == 503
    assert rejected.headers["Retry-After"] == "1"
    assert rejected.get_json()["error"]["code"] == "service_unavailable"
    assert ping.status_code == 200
    assert len(predicted) == 1


def test_images_of_a_request_are_predicted_in_parallel_and_returned_in_order() -> None:
    # Two threads pass it only together.
    barrier = threading.Barrier(2, timeout=10)

    def bright(image: Pixels, *, is_idle: bool) -> Probabilities:
        assert not is_idle
        barrier.wait()
        share = np.float32(image.mean() / 255)
        return np.array([share, 1 - share], np.float32)

    images = [encode(np.full((8, 8, 3), shade, np.uint8)) for shade in (0, 51, 102, 255)]

    response = client_of(bright).post(
        "/invocations", data=instances(*images), content_type="application/json"
    )

    shares = [each["probabilities"][0] for each in response.get_json()["predictions"]]
    assert shares == pytest.approx([0, 0.2, 0.4, 1])


def test_unreadable_image_does_not_fail_the_others() -> None:
    body = instances(PNG, b"not an image", PNG)

    response = client_of(even).post("/invocations", data=body, content_type="application/json")

    first, bad, last = response.get_json()["predictions"]
    assert response.status_code == 200
    assert first == last
    assert first["probabilities"] == [0.5, 0.5]
    assert bad["error"]["code"] == "unprocessable_entity"
    assert bad["error"]["message"].startswith("instance 1: not an image")


def test_large_response_is_sent_in_chunks() -> None:
    names = tuple(f"class {number}" for number in range(80_000))
    loading: Future[Predictor] = Future()
    loading.set_result(
        Predictor(
            class_names=names,
            preprocessing=Preprocessing(image_size=32),
            infer=lambda image, *, is_idle: np.full(len(names), 1 / len(names), np.float32),  # noqa: ARG005
        )
    )
    client = create_app(loading, Settings(), Pool(1)).test_client()

    response = client.post("/invocations", data=PNG, content_type="image/png", buffered=False)
    chunks = list(response.iter_encoded())

    assert len(chunks) > 1
    assert max(map(len, chunks)) <= RESPONSE_CHUNK_BYTES
    assert response.content_length == sum(map(len, chunks))
    assert json.loads(b"".join(chunks))["class_names"] == list(names)


def test_only_image_in_the_server_may_use_every_core() -> None:
    seen = []

    def record(image: Pixels, *, is_idle: bool) -> Probabilities:
        seen.append(is_idle)
        return even(image, is_idle=is_idle)

    client = client_of(record)
    invoke(client)
    invoke(client)

    assert seen == [True, True]


@pytest.mark.parametrize("name", ["X-Amzn-SageMaker-Inference-Id", "X-Request-Id"])
def test_request_id_of_the_client_is_kept(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    response = client_of(even).post("/invocations", data=PNG, headers={name: "trace-1"})

    assert response.headers["X-Request-Id"] == "trace-1"
    assert caplog.messages[-1].endswith(" id=trace-1")


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "status=200\tid"])
def test_request_id_that_could_forge_log_lines_is_replaced(given: str) -> None:
    response = client_of(even).post("/invocations", data=PNG, headers={"X-Request-Id": given})

    assert re.fullmatch("[0-9a-f]{16}", response.headers["X-Request-Id"])


def test_client_that_stops_sending_the_body_gets_408() -> None:
    class Stalling(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            raise TimeoutError

    response = client_of(even).post(
        "/invocations", input_stream=Stalling(), content_type="image/png"
    )

    assert response.status_code == 408
    assert response.get_json()["error"]["message"].startswith("the client stopped sending the body")


@pytest.mark.parametrize(("path", "status"), [("/invocations", 405), ("/predict", 404)])
def test_error_about_a_path_has_the_existing_ones(path: str, status: int) -> None:
    response = client_of(even).get(path)

    assert response.status_code == status
    assert ("POST" in response.headers.get("Allow", "")) == (status == 405)
    message = response.get_json()["error"]["message"]
    existing = "GET /execution-parameters, POST /invocations, GET /ping"
    assert message == f"GET {path} does not exist; this server has {existing}"


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        ({}, "port", 8080),
        ({}, "wait_seconds", 2),
        ({"SAGEMAKER_BATCH": "true"}, "wait_seconds", 3600),
        ({"SAGEMAKER_CLASSIFIER_WAIT_SECONDS": "5"}, "wait_seconds", 5),
        ({"SAGEMAKER_CLASSIFIER_STREAMS": "3"}, "streams", 3),
        ({"SAGEMAKER_BIND_TO_PORT": "9000"}, "port", 9000),
        ({"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}, "workers", 2),
        ({}, "multi_model", False),
        ({"SAGEMAKER_MULTI_MODEL": "true"}, "multi_model", True),
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
def test_invalid_setting_is_reported_with_its_value(name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"{name} must be .* got '{value}'"):
        Settings.from_environment({name: value})
