"""Runs on an MLflow tracking server: a real server receives the run of a real training."""

import json
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import image_classifier.sagemaker
from container.classifier.environment import JOB_NAME_VARIABLE, TRACKING_VARIABLE
from container.training.output import tracking
from container.training.output.tracking import Tracker
from container.training.sagemaker.stop import StopRequest
from image_classifier.local import job_inputs
from image_classifier.sagemaker import training_requests
from tests.opt_ml import make_job, train_here
from tests.settings_files import TUNING, read

pytestmark = [
    # Of MLflow's own packages; its connections are closed by the garbage collector.
    pytest.mark.filterwarnings("ignore"),
]

POLICIES = Path(image_classifier.sagemaker.__file__).with_name("policies")

SECRET = "hunter2"  # noqa: S105 - not a real one


# Paths of MLflow's REST API with the actions of IAM that SageMaker's managed MLflow has for them.
ACTIONS = {
    "experiments/create": "CreateExperiment",
    "experiments/get-by-name": "GetExperimentByName",
    "runs/create": "CreateRun",
    "runs/get": "GetRun",
    "runs/log-batch": "LogBatch",
    "runs/update": "UpdateRun",
}
REST = "/api/2.0/mlflow/"


@pytest.fixture(scope="module")
def paths() -> list[str]:
    """The paths of all requests to the server."""
    return []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, paths: list[str]) -> Iterator[str]:
    """The address of MLflow's server, with a file store."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "_MLFLOW_SERVER_FILE_STORE": str(folder / "runs"),
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        }.items():
            patch.setenv(name, value)
        # They take seconds to import.
        from mlflow.server import app  # noqa: PLC0415
        from werkzeug.serving import make_server  # noqa: PLC0415

        def recorded(environ: Any, start_response: Any) -> Any:  # noqa: ANN401 - WSGI's own
            paths.append(environ["PATH_INFO"])
            return app(environ, start_response)

        running = make_server("127.0.0.1", 0, recorded, threaded=True)
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the variables for which `start` sets defaults; wait as long as a slow test needs."""
    monkeypatch.setattr(tracking, "ANSWER_SECONDS", 600.0)
    for name in (*tracking.DEFAULTS, tracking.EXPERIMENT_VARIABLE, JOB_NAME_VARIABLE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def client_of(address: str) -> Any:  # noqa: ANN401 - MLflow's own
    from mlflow import tracking as mlflow_tracking  # noqa: PLC0415

    return mlflow_tracking.MlflowClient(address)


def only_run(client: Any, experiment: str) -> Any:  # noqa: ANN401
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id])
    return run


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of this program, without those of MLflow."""
    own = [record for record in caplog.records if record.name == tracking.logger.name]
    return [record.getMessage() for record in own if record.levelno >= logging.WARNING]


def test_server_receives_the_run_of_a_training(
    server: str, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRACKING_VARIABLE, server)
    monkeypatch.setenv(JOB_NAME_VARIABLE, "hands-261129-101500")

    tensors = tmp_path / "output" / "data" / "debug"
    tensors.mkdir(parents=True)
    (tensors / "events.tfevents").touch()

    assert train_here(make_job(tmp_path, epochs="2", debug="off"), "train") == 0

    # The other requests upload artifacts, which the managed MLflow has on S3.
    called = {ACTIONS[path.removeprefix(REST)] for path in paths if path.startswith(REST)}
    (statement,) = json.loads((POLICIES / "role-mlflow.json").read_text())["Statement"]
    assert {f"sagemaker-mlflow:{action}" for action in called} == set(statement["Action"])
    client = client_of(server)
    run = only_run(client, tracking.EXPERIMENT)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "hands-261129-101500")
    params = run.data.params
    assert (params["network"], params["epochs"], params["classes"]) == ("small", "2", "3")
    assert len(params["training_data_sha256"]) == 64
    history = client.get_metric_history(run.info.run_id, "val_accuracy")
    assert [metric.step for metric in history] == [1, 2]
    metrics = run.data.metrics
    best = history[int(metrics["best_epoch"]) - 1].value
    assert metrics["best_val_accuracy"] == pytest.approx(best, abs=0.2)
    artifacts = {
        file.path
        for folder in ("model", "reports")
        for file in client.list_artifacts(run.info.run_id, folder)
    }
    assert {"model/manifest.json", "model/model.onnx", "reports/report.html"} <= artifacts
    # Recorded tensors stay on SageMaker.
    assert "reports/debug" not in artifacts
    written = (tmp_path / "model" / "manifest.json").read_text()
    downloaded = client.download_artifacts(run.info.run_id, "model/manifest.json", str(tmp_path))
    assert Path(downloaded).read_text() == written


@pytest.mark.parametrize(
    ("is_stopped", "is_failed", "status"),
    [(False, False, "FINISHED"), (False, True, "FAILED"), (True, False, "KILLED")],
)
def test_end_of_the_job_is_the_status_of_the_run_in_a_file_store(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    *,
    is_stopped: bool,
    is_failed: bool,
) -> None:
    monkeypatch.setenv(TRACKING_VARIABLE, str(tmp_path / "runs"))
    monkeypatch.setenv(tracking.EXPERIMENT_VARIABLE, "hands")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").touch()
    stop = StopRequest()

    try:
        with Tracker(stop) as tracker:
            tracker.start("job", {"network": "small", "unset": None, "long": "x" * 9000})
            tracker.log_metrics({"val_loss": 0.5, "name": "text"}, 1)
            stop.requested = is_stopped
            tracker.upload(tmp_path / "model", "model")
            if is_failed:
                raise ValueError
    except ValueError:
        assert is_failed

    client = client_of(str(tmp_path / "runs"))
    run = only_run(client, "hands")
    assert run.info.status == status
    assert run.data.params.keys() == {"network", "long"}
    assert run.data.metrics == {"val_loss": 0.5}
    assert bool(client.list_artifacts(run.info.run_id, "model")) != is_stopped


def test_server_that_is_not_there_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(TRACKING_VARIABLE, f"http://anna:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with Tracker(StopRequest()) as tracker:
        tracker.start("job", {})
        for epoch in range(3):
            tracker.log_metrics({"val_loss": 0.5}, epoch)

    (warning,) = warnings_of(caplog)
    assert warning.startswith("MLflow failed, and the job continues without it: ")
    assert SECRET not in caplog.text


def test_job_does_not_wait_for_a_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(TRACKING_VARIABLE, f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")

        with Tracker(StopRequest()) as tracker:
            tracker.start("job", {})

        assert warnings_of(caplog) == ["the MLflow server does not answer: its run is incomplete"]
    (thread,) = (each for each in threading.enumerate() if each.name == "mlflow")
    thread.join()


def test_missing_package_names_the_build_argument(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(TRACKING_VARIABLE, "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "mlflow", None)

    with Tracker(StopRequest()) as tracker:
        tracker.start("job", {})

    (warning,) = warnings_of(caplog)
    assert "MLFLOW_TRACKING_URI is set, but the package mlflow is missing" in warning
    assert "--build-arg MLFLOW=yes" in warning


def test_nothing_starts_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRACKING_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    before = threading.active_count()

    with Tracker(StopRequest()) as tracker:
        tracker.start("job", {})
        tracker.log_metrics({"val_loss": 0.5}, 1)
        assert threading.active_count() == before


def test_settings_name_the_server(tmp_path: Path) -> None:
    variables = {TRACKING_VARIABLE: "http://10.0.0.1:5000"}
    text = f'[training.environment]\n{TRACKING_VARIABLE} = "http://10.0.0.1:5000"\n'
    small = '[hyperparameters]\nnetwork = "small"\n'
    file = read(tmp_path, text + small)

    assert training_requests.training_job(file.settings, "hands-1")["Environment"] == variables
    settings = read(tmp_path, text + TUNING).settings
    assert settings.tuning
    tuning = training_requests.tuning_job(settings, settings.tuning, "hands-1")
    definition = tuning["TrainingJobDefinition"]
    assert isinstance(definition, dict)
    assert definition["Environment"] == variables
    # Its container can connect.
    assert job_inputs.has_network(file)
    assert not job_inputs.has_network(read(tmp_path, small))
