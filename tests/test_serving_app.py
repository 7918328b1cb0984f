"""The HTTP side with a predictor of the test's own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from classifier.artifact import Artifact
from classifier.errors import ArtifactError, UserError
from classifier.preprocessing import Pixels, Preprocessing
from serving.app import create_app
from serving.encoding import Probabilities
from serving.engine import Engine
from serving.limits import usable_memory, usable_processors
from serving.predictor import Predictor
from serving.settings import MIB, Settings
from tests.artifacts import CLASS_NAMES, encode, random_pixels

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


def test_the_engine_answers_alike_alone_in_a_batch_and_from_many_threads(artifact: Path) -> None:
    predictor = Predictor.load(artifact, streams=2)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    expected = predictor.predict(images)
    answers: list[Probabilities] = []

    threads = [
        threading.Thread(target=lambda: answers.append(predictor.predict(images))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(np.array_equal(answer, expected) for answer in answers)
    alone = [predictor.predict(image[np.newaxis])[0] for image in images]
    assert np.array_equal(np.stack(alone), expected)


@pytest.mark.parametrize(
    ("size", "classes", "precision", "message"),
    [
        (32, 4, "float32", r"must turn u8 into \[1,4\]"),
        (32, len(CLASS_NAMES), "float8", "precision must be one of"),
    ],
)
def test_another_network_than_the_manifests_is_refused(
    artifact: Path, size: int, classes: int, precision: str, message: str
) -> None:
    onnx_model = Artifact.read(artifact).onnx_model

    with pytest.raises(ArtifactError, match=message):
        Engine(onnx_model, image_size=size, classes=classes, precision=precision, streams=1)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    onnx_model = tmp_path / "model.onnx"
    onnx_model.write_bytes(b"not a network")

    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be compiled"):
        Engine(onnx_model, image_size=32, classes=2, precision="float32", streams=1)


def test_an_artifact_without_golden_answers_is_refused(artifact: Path) -> None:
    predictor = Predictor.load(artifact, streams=1)

    with pytest.raises(ArtifactError, match="no golden answer"):
        predictor.check(())
