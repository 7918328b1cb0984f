"""Both container images in the SageMaker SDK's Local Mode, with the objects of `sdk.py`."""

import gc
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from image_classifier.settings.schema import ContainerImages, Settings
from image_classifier.settings.settings_file import SettingsFile
from tests.bodies import lines
from tests.containers import compose_containers, docker, remove_compose_containers, take_ownership
from tests.processes import free_port
from tests.servers import request
from tests.settings_files import read

if TYPE_CHECKING:
    from sagemaker.estimator import Estimator
    from sagemaker.local import LocalSession
    from sagemaker.predictor import Predictor

pytestmark = [
    pytest.mark.docker,
    # The SDK leaves the pipes of its `docker compose` processes open.
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    # Its thread raises an error when the SDK itself stops Compose.
    pytest.mark.filterwarnings(
        "ignore:Exception in thread:pytest.PytestUnhandledThreadExceptionWarning"
    ),
]

SETTINGS = """
name = "squares"

[aws]                       # for SageMaker itself
region = "eu-west-1"
bucket = "my-bucket"

[data]
local = "images"
channels = ["training"]

[training]
spot = true
environment = { OMP_NUM_THREADS = "1" }

[hyperparameters]
network = "small"
image_size = 32
epochs = 10
batch_size = 16
"""
COLORS = {"blue": (30, 40, 200), "green": (40, 180, 50), "red": (200, 30, 40)}

# The SDK uses `docker compose` only if its version begins with v2, else this program.
DOCKER_COMPOSE = """#!/bin/sh
exec docker compose "$@"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, train_image: str) -> Iterator[Path]:
    """Folder of the files that the SDK and the containers write."""
    yield (directory := tmp_path_factory.mktemp("local_mode"))
    take_ownership(directory, train_image)


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def sdk() -> ModuleType:
    """Our module of SDK objects, which takes seconds to import."""
    from image_classifier.sagemaker import sdk

    return sdk


@pytest.fixture(scope="module")
def session(folder: Path, port: int, sdk: ModuleType) -> Iterator["LocalSession"]:
    """A session of Local Mode, on a machine without account, region or settings."""
    program = folder / "bin/docker-compose"
    program.parent.mkdir()
    program.write_text(DOCKER_COMPOSE)
    program.chmod(0o755)
    (folder / "containers").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
            patch.delenv(f"AWS_{name}", raising=False)
        for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
            patch.setenv(f"AWS_{name}", str(folder / "none"))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("PATH", f"{os.environ['PATH']}:{program.parent}")
        from sagemaker.telemetry import telemetry_logging

        sent: list[object] = []
        name = "_send_telemetry_request"
        patch.setattr(telemetry_logging, name, lambda *facts: sent.append(facts))
        yield sdk.local_session(folder / "containers", port)
        assert not sent
    remove_compose_containers(folder)
    docker("network", "rm", "sagemaker-local", check=False)
    # Its open files are reported here, not in the tests of another module.
    gc.collect()


def _write_images(directory: Path, count: int) -> None:
    for name, (red, green, blue) in COLORS.items():
        (directory / name).mkdir(parents=True)
        for number in range(count):
            image = Image.new("RGB", (40, 36), (red + number, green + number, blue + number))
            image.save(directory / name / f"{number}.png")


@pytest.fixture(scope="module")
def file(folder: Path) -> SettingsFile:
    _write_images(folder / "images/training", 20)
    return read(folder, SETTINGS, "")


@pytest.fixture(scope="module")
def settings(sdk: ModuleType, file: SettingsFile, train_image: str, serve_image: str) -> Settings:
    settings: Settings = sdk.for_local_mode(file.settings)
    assert settings.images == ContainerImages.model_construct(train=train_image, serve=serve_image)
    return settings


@pytest.fixture(scope="module")
def estimator(
    sdk: ModuleType,
    session: "LocalSession",
    file: SettingsFile,
    settings: Settings,
    folder: Path,
) -> "Estimator":
    (folder / "output").mkdir()
    estimator = sdk.estimator(settings, session, f"file://{folder / 'output'}")
    estimator.fit(sdk.local_channels(file))
    return estimator


def test_fit_produces_the_artifact_and_reports(estimator: "Estimator", folder: Path) -> None:
    with tarfile.open(estimator.model_data.removeprefix("file://")) as archive:
        names = set(archive.getnames())
    with tarfile.open(folder / "output/output.tar.gz") as archive:
        reports = set(archive.getnames())

    assert {"manifest.json", "weights.safetensors", "model.onnx", "golden"} <= names
    assert {"data/metrics.json", "data/report.html"} <= reports


def test_fit_on_two_instances_produces_one_model(
    sdk: ModuleType,
    session: "LocalSession",
    file: SettingsFile,
    settings: Settings,
    folder: Path,
) -> None:
    output, others = folder / "output_of_two", compose_containers(folder)
    output.mkdir()
    two = settings.model_copy(
        update={"training": settings.training.model_copy(update={"instance_count": 2})}
    )

    estimator = sdk.estimator(two, session, f"file://{output}")
    estimator.fit(sdk.local_channels(file))

    containers = [name for name in compose_containers(folder) if name not in others]
    assert len(containers) == 2
    assert [docker("wait", container).text for container in containers] == ["0\n", "0\n"]
    logs = [docker("logs", container).text for container in containers]
    assert all("processes=2" in log for log in logs)
    assert sorted("artifact=" in log for log in logs) == [False, True]
    with tarfile.open(estimator.model_data.removeprefix("file://")) as archive:
        assert archive.getnames().count("weights.safetensors") == 1


@pytest.fixture(params=["estimator", "model"])
def predictor(
    request: pytest.FixtureRequest,
    estimator: "Estimator",
    settings: Settings,
    session: "LocalSession",
    folder: Path,
) -> Iterator["Predictor"]:
    """An endpoint, deployed by the Estimator and by the Model."""
    from sagemaker.deserializers import JSONDeserializer
    from sagemaker.serializers import IdentitySerializer

    options = {
        # The endpoint is up already; waiting polls every 30 s.
        "wait": False,
        "serializer": IdentitySerializer("image/png"),
        "deserializer": JSONDeserializer(),
    }
    if request.param == "estimator":
        predictor = estimator.deploy(1, "local", image_uri=settings.images.serve, **options)
    else:
        # Local Mode extracts an archive beside itself.
        archive = folder / "deployed" / "model.tar.gz"
        archive.parent.mkdir()
        shutil.copy(estimator.model_data.removeprefix("file://"), archive)
        sdk = request.getfixturevalue("sdk")
        model = sdk.model(settings, f"file://{archive}", session)
        predictor = model.deploy(1, "local", **options)
    yield predictor
    predictor.delete_endpoint()


def test_predict_returns_the_class(predictor: "Predictor", folder: Path, port: int) -> None:
    for name in COLORS:
        image = (folder / "images/training" / name / "3.png").read_bytes()

        answer = predictor.predict(image)
        # The SDK returns the body of an error like any other.
        direct = request(port, "POST", "/invocations", image, {"Content-Type": "image/png"})

        assert direct.status == 200
        assert json.loads(direct.body) == answer
        assert answer["predictions"][0]["class_name"] == name
        assert answer["class_names"] == sorted(COLORS)


def test_transform_classifies_every_image(
    sdk: ModuleType,
    estimator: "Estimator",
    settings: Settings,
    session: "LocalSession",
    folder: Path,
) -> None:
    images, answers = folder / "batch", folder / "answers"
    images.mkdir()
    for name in COLORS:
        shutil.copy(folder / "images/training" / name / "7.png", images / f"{name}.png")
    (images / "broken.png").write_bytes((images / f"{name}.png").read_bytes()[:50])
    model = sdk.model(settings, estimator.model_data, session)
    model.create()

    transformer = sdk.transformer(settings, model.name, f"file://{answers}", session)
    # The SDK would read the logs from CloudWatch.
    transformer.transform(
        f"file://{images}", content_type=settings.transform.content_type, logs=False
    )

    written = {path.name: json.loads(path.read_text()) for path in answers.iterdir()}
    (broken,) = written.pop("broken.png.out")["predictions"]
    assert broken["error"]["code"] == "unprocessable_entity"
    assert {name: answer["predictions"][0]["class_name"] for name, answer in written.items()} == {
        f"{name}.png.out": name for name in COLORS
    }


def test_transform_sends_lines_in_mini_batches(
    sdk: ModuleType,
    estimator: "Estimator",
    settings: Settings,
    session: "LocalSession",
    folder: Path,
) -> None:
    records, answers = folder / "records", folder / "answers-in-lines"
    records.mkdir()
    images = [folder / "images/training" / name / "7.png" for name in COLORS]
    data = lines(*[path.read_bytes() for path in images])
    (records / "images.jsonl").write_bytes(data)
    model = sdk.model(settings, estimator.model_data, session)
    model.create()

    transformer = sdk.transformer(settings, model.name, f"file://{answers}", session)
    transformer.strategy, transformer.assemble_with = "MultiRecord", "Line"
    transformer.accept = "application/jsonlines"
    transformer.transform(
        f"file://{records}", content_type="application/jsonlines", split_type="Line", logs=False
    )

    written = (answers / "images.jsonl.out").read_text().splitlines()
    assert [json.loads(line)["class_name"] for line in written] == list(COLORS)


def _local_steps(file: SettingsFile, folder: Path, images: ContainerImages) -> list[object]:
    """Return the SDK's steps for the jobs of a pipeline's definition, on this machine.

    Local Mode has no steps that register, and no metrics of a training job to evaluate.
    """
    from sagemaker.workflow.execution_variables import ExecutionVariables
    from sagemaker.workflow.functions import Join
    from sagemaker.workflow.properties import Properties
    from sagemaker.workflow.steps import Step, StepTypeEnum

    from image_classifier.sagemaker import pipeline
    from image_classifier.sagemaker.aws import Aws

    class JobStep(Step):  # type: ignore[misc]
        properties = arguments = None

        def __init__(self, document: dict[str, Any]) -> None:
            super().__init__(document["Name"], step_type=StepTypeEnum(document["Type"]))
            self.arguments = variables(document["Arguments"])

    def variables(value: object) -> object:
        """Replace the variables of a definition by the SDK's objects."""
        match value:
            case {"Get": "Execution.PipelineExecutionId"}:
                return ExecutionVariables.PIPELINE_EXECUTION_ID
            case {"Get": str(name)}:
                _, step, path = name.split(".", 2)
                return Properties(step, path)
            case {"Std:Join": {"On": separator, "Values": values}}:
                return Join(on=separator, values=[variables(each) for each in values])
            case dict():
                return {key: variables(item) for key, item in value.items()}
            case list():
                return [variables(item) for item in value]
        return value

    dry = Aws(region="eu-west-1", is_dry=True, show=lambda _text: None)
    text = json.dumps(pipeline.definition(dry, file))
    for given, local in (
        ("s3://my-bucket", f"file://{folder}/bucket"),
        (file.settings.images.train, images.train),
        (file.settings.training.instance_type, "local"),
        (file.settings.pipeline.instance_type, "local"),
    ):
        text = text.replace(str(given), str(local))
    steps = json.loads(text)["Steps"]
    return [JobStep(step) for step in steps if step["Name"] in {"Prepare", "Train"}]


@pytest.mark.slow
def test_pipeline_prepares_and_trains(
    session: "LocalSession", settings: Settings, folder: Path
) -> None:
    from sagemaker.workflow.pipeline import Pipeline

    _write_images(folder / "bucket/hands/raw", 10)
    rest = SETTINGS[SETTINGS.index("[data]") :].replace("epochs = 10", "epochs = 1")
    rest += 'quantize = "none"\ndebug = "off"\nprecision = "float32"\n'
    source = '[pipeline]\nsource = "s3://my-bucket/hands/raw/"\n'
    (folder / "pipeline").mkdir()
    file = read(folder / "pipeline", rest + source)
    steps = _local_steps(file, folder, settings.images)
    # The order of the steps follows from their variables.
    pipeline = Pipeline("hands", steps=steps[::-1], sagemaker_session=session)
    pipeline.create("role")

    execution = pipeline.start()

    assert execution.describe()["PipelineExecutionStatus"] == "Succeeded"
    listed = {each["StepName"]: each for each in execution.list_steps()["PipelineExecutionSteps"]}
    assert {name: step["StepStatus"] for name, step in listed.items()} == {
        "Prepare": "Succeeded",
        "Train": "Succeeded",
    }
    (prepared,) = folder.glob("bucket/hands/output/*/data/validation")
    assert {path.name for path in prepared.iterdir()} == set(COLORS)
    (model,) = folder.glob("bucket/hands/output/**/model.tar.gz")
    with tarfile.open(model) as archive:
        assert "manifest.json" in archive.getnames()
