"""The verbs on SageMaker, against moto's server: requests, output and remaining resources."""

import io
import json
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import boto3
import pytest

from container.classifier.errors import UserError
from container.serving import settings as server_settings
from image_classifier.sagemaker import prediction, prices
from image_classifier.settings import inference, service_model
from tests.accounts import (
    ENDPOINT,
    MOTO_ACCOUNT,
    ON_ACCOUNT,
    USER,
    StandIn,
    answer_with,
    backend,
    client,
    configure_moto,
    get,
    keys,
    put,
    run,
)
from tests.endpoints import Behavior, patch_server
from tests.processes import free_port
from tests.red_patch import write_images
from tests.settings_files import BEGINNING, EXAMPLES, TUNING, read, write

JOBS_OF_TUNING = "sagemaker.ListTrainingJobsForHyperParameterTuningJob"

pytestmark = ON_ACCOUNT


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def trained(settings: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run("train", settings) == 0
    name = last_line(capsys)
    put(f"hands/output/{name}/output/model.tar.gz")
    return name


def test_train_creates_a_job_and_prints_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = trained(write(tmp_path, "[hyperparameters]\nepochs = 3\naugment = false\n"), capsys)

    job = client("sagemaker").describe_training_job(TrainingJobName=name)
    assert job["HyperParameters"] == {"epochs": "3", "augment": "false"}
    assert {each["ChannelName"] for each in job["InputDataConfig"]} == {"training", "validation"}


def test_log_of_a_job_names_other_hosts_than_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path)
    name = trained(settings, capsys)
    group, logs = "/aws/sagemaker/TrainingJobs", client("logs")
    logs.create_log_group(logGroupName=group)
    now = int(time.time() * 1000)
    for number, text in ((1, "epoch=1"), (2, "waits")):
        stream = f"{name}/algo-{number}-{now}"
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        event = {"timestamp": now + number, "message": f"{text}\n"}
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])

    assert run("logs", settings) == 0
    assert capsys.readouterr().out.splitlines() == ["epoch=1", "algo-2: waits"]
    assert run("logs", settings, "--json") == 0

    documents = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [(each["host"], each["message"]) for each in documents] == [
        ("algo-1", "epoch=1"),
        ("algo-2", "waits"),
    ]
    assert datetime.fromisoformat(documents[0]["time"]).timestamp() * 1000 == now + 1


def test_tune_creates_a_tuning_job(
    tmp_path: Path,
    stand_in: StandIn,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_in.answer(JOBS_OF_TUNING, {"TrainingJobSummaries": []})
    assert run("tune", write(tmp_path, TUNING)) == 0

    name = last_line(capsys)
    job = client("sagemaker").describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    config = job["HyperParameterTuningJobConfig"]
    assert config["HyperParameterTuningJobObjective"] == {
        "Type": "Minimize",
        "MetricName": "val_loss",
    }
    assert len(name) <= 32


def test_train_from_tuning_uses_the_best_hyperparameters(
    tmp_path: Path,
    stand_in: StandIn,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_in.answer(JOBS_OF_TUNING, {"TrainingJobSummaries": []})
    settings = write(tmp_path, TUNING + "[hyperparameters]\nbatch_size = 8\nepochs = 3\n")
    pairs = ("epochs=2", "seed=1", "batch_size=16")
    options = [part for pair in pairs for part in ("--set", f"hyperparameters.{pair}")]
    assert run("tune", settings, "--set", "tuning.jobs=2", *options) == 0
    printed = capsys.readouterr()
    tuning = printed.out.splitlines()[-1]
    assert printed.err == (
        f"next: image-classifier train {settings} --set hyperparameters.seed=1 --from-tuning "
        f"{tuning} (without --set hyperparameters.epochs=2, hyperparameters.batch_size=16, which "
        "was for the trials)\n"
    )
    best = backend().hyper_parameter_tuning_jobs[tuning].best_training_job
    best["TunedHyperParameters"] = {"batch_size": "64", "learning_rate": "0.004"}

    assert run("train", settings, "--from-tuning", tuning) == 0

    job = client("sagemaker").describe_training_job(TrainingJobName=last_line(capsys))
    assert job["HyperParameters"] == {"batch_size": "64", "epochs": "3", "learning_rate": "0.004"}
    assert run("train", settings, "--from-tuning", tuning, *options) == 0
    job = client("sagemaker").describe_training_job(TrainingJobName=last_line(capsys))
    assert job["HyperParameters"] == {
        "batch_size": "16",
        "epochs": "2",
        "learning_rate": "0.004",
        "seed": "1",
    }
    best.clear()
    assert run("train", settings, "--from-tuning", tuning) == 1
    assert "no best job yet: wait until it is completed" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["real-time", "serverless", "asynchronous"])
def test_deploy_creates_an_endpoint_for_the_newest_model(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, f'{ENDPOINT}kind = "{kind}"\n')
    name = trained(settings, capsys)

    assert run("deploy", settings) == 0

    assert last_line(capsys) == "hands"
    sagemaker = client("sagemaker")
    config = sagemaker.describe_endpoint(EndpointName="hands")["EndpointConfigName"]
    variant = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0]
    assert ("ServerlessConfig" in variant) == (kind == "serverless")
    container = sagemaker.describe_model(ModelName=variant["ModelName"])["PrimaryContainer"]
    assert name in container["ModelDataUrl"]


def test_deploy_updates_an_existing_endpoint(
    tmp_path: Path,
    stand_in: StandIn,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sagemaker, first = client("sagemaker"), "hands-250101-000000"
    sagemaker.create_model(ModelName=first, ExecutionRoleArn=f"arn:aws:iam::{MOTO_ACCOUNT}:role/r")
    variant = {
        "ModelName": first,
        "VariantName": "AllTraffic",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=first, ProductionVariants=[variant])
    tags = {"image-classifier": "hands", "image-classifier-creator": USER}
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    sagemaker.create_endpoint(EndpointName="hands", EndpointConfigName=first, Tags=listed)
    stand_in.answer("sagemaker.UpdateEndpoint", {"EndpointArn": "arn:aws:sagemaker:eu-west-1:1:e"})
    stand_in.answer(
        "sagemaker.DescribeEndpoint",
        lambda: {
            "EndpointStatus": "InService",
            "EndpointConfigName": stand_in.sent("UpdateEndpoint")[0]["EndpointConfigName"],
        },
    )

    settings = write(tmp_path, ENDPOINT)
    assert run("deploy", settings, "--job", "s3://my-bucket/b/model.tar.gz") == 0

    assert last_line(capsys) == "hands"
    (update,) = stand_in.sent("UpdateEndpoint")
    assert update["EndpointName"] == "hands"
    name = update["EndpointConfigName"]
    assert name != first
    config = sagemaker.describe_endpoint_config(EndpointConfigName=name)
    model = sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    assert model["PrimaryContainer"]["ModelDataUrl"] == "s3://my-bucket/b/model.tar.gz"


def test_deploy_copies_models_under_one_prefix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path)
    name = trained(settings, capsys)
    multi = f'{ENDPOINT}kind = "multi-model"\nmodels = ["{name}"]\n'
    settings = write(tmp_path, multi)
    artifact = client("sagemaker").describe_training_job(TrainingJobName=name)["ModelArtifacts"]
    put(artifact["S3ModelArtifacts"].removeprefix("s3://my-bucket/"))

    assert run("deploy", settings) == 0

    assert any(key.startswith("hands/output/models/") for key in keys())


def test_predict_prints_the_predicted_class(
    account: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, image = write(tmp_path), tmp_path / "a.png"
    image.write_bytes(b"png")
    ranking = [
        {"class_name": "0L", "probability": 0.75},
        {"class_name": "1R", "probability": 0.25},
    ]
    prediction = {**ranking[0], "probabilities": [0.75, 0.25], "ranking": ranking}
    answer = {"predictions": [prediction], "class_names": ["0L", "1R"]}
    answer_with(account, json.dumps(answer))

    assert run("predict", settings, image) == 0
    assert last_line(capsys) == f"{image}: 0L (75.0%), next best 1R (25.0%)"
    # moto repeats its last response.
    assert run("predict", settings, image, "--json") == 0
    assert json.loads(last_line(capsys)) == answer


def test_predict_requests_and_prints_the_top_classes(
    account: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, image = write(tmp_path), tmp_path / "a.png"
    image.write_bytes(b"png")
    ranking = [{"class_name": name, "probability": 0.25} for name in "abc"]
    answer_with(account, json.dumps({"predictions": [{**ranking[0], "ranking": ranking}]}))

    assert run("predict", settings, image, "--top", "3") == 0
    text = "a (25.0%), next best b (25.0%), c (25.0%)"
    assert last_line(capsys) == f"{image}: {text}"
    assert run("predict", settings, image, "--top", "1") == 0
    assert last_line(capsys) == f"{image}: a (25.0%)"
    assert run("predict", settings, image, "--top", "3", "--dry-run") == 0
    assert '"application/json;top=3"' in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        run("predict", settings, image, "--top", "0")
    assert "expected a whole number from 1 on, got '0'" in capsys.readouterr().err


def test_predict_waits_for_an_asynchronous_response(
    account: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, image = write(tmp_path, '[endpoint]\nkind = "asynchronous"\n'), tmp_path / "a.png"
    image.write_bytes(b"png")
    answer = {"predictions": [{"class_name": "0L", "probability": 0.75}], "class_names": ["0L"]}
    rejected = "415: no image"
    results = [{"data": json.dumps(answer)}, {"data": rejected, "is_failure": True}]
    configure_moto(account, "async-endpoint-results", results)

    assert run("predict", settings, image) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{image}: 0L (75.0%)\n"
    assert printed.err.startswith(f"next: image-classifier delete {settings} ")
    (sent,) = (key for key in keys() if key.startswith("hands/output/asynchronous/requests/"))
    assert get(sent) == b"png"

    assert run("predict", settings, image) == 1
    assert f"{image}: the endpoint rejected the image: {rejected}\n" == capsys.readouterr().out


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behavior]:
    """A server that detects a red patch, as a SageMaker endpoint and on its own port."""
    with patch_server() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", running.url)
        yield running


EXPLAIN = "[explain]\nnum_samples = 60\nnum_segments = 10\n"


@pytest.mark.parametrize("where", ["endpoint", "local"])
def test_explain_uses_the_endpoint_or_the_local_server(
    where: str,
    patched: Behavior,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = write(tmp_path, EXPLAIN)
    (image,) = write_images(tmp_path / "images", 1)
    local = ["--local", "--port", patched.port] if where == "local" else []
    # Relative to the settings file. It differs from white noise.
    baseline = f"explain.baseline={image.relative_to(tmp_path)}"

    assert run("explain", settings, tmp_path / "images", *local, "--set", baseline) == 0

    report = Path(last_line(capsys))
    assert "for this class: there is little to explain" in report.read_text()
    assert "patch" in report.read_text()
    assert json.loads((report.parent / "analysis.json").read_bytes())
    path = "/invocations" if where == "local" else "/endpoints/hands/invocations"
    assert set(patched.paths) == {path}


def test_explain_rejects_asynchronous_endpoints_and_missing_servers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, EXPLAIN + '[endpoint]\nkind = "asynchronous"\n')
    write_images(tmp_path / "images", 1)

    assert run("explain", settings, tmp_path / "images") == 1
    assert "an asynchronous endpoint is too slow" in capsys.readouterr().err
    assert run("explain", settings, tmp_path / "images", "--local", "--port", free_port()) == 1
    assert "`deploy --local` first" in capsys.readouterr().err


def test_explain_with_clarify_creates_a_processing_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", write(tmp_path, EXPLAIN), "s3://my-bucket/images/"]
    command += ["--job", "s3://my-bucket/a/model.tar.gz", "--clarify", "cat", "dog"]

    assert run(*command, "--set", "explain.segment_compactness=30") == 0

    where = last_line(capsys)
    name = where.rsplit("/", 1)[1]
    job = client("sagemaker").describe_processing_job(ProcessingJobName=name)
    assert {each["InputName"] for each in job["ProcessingInputs"]} == {"analysis_config", "dataset"}
    config = client("s3").get_object(
        Bucket="my-bucket", Key=f"hands/output/{name}/config/analysis_config.json"
    )
    document = json.loads(config["Body"].read())
    assert document["predictor"]["label_headers"] == ["cat", "dog"]
    shap = document["methods"]["shap"]
    assert shap["num_samples"] == 60
    assert (shap["image_config"]["num_segments"], shap["image_config"]["segment_compactness"]) == (
        10,
        30,
    )


@pytest.mark.parametrize("verb", ["explain", "train"])
def test_missing_sdk_is_reported_by_the_verbs_that_need_it(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "sagemaker", None)
    service = '[debugger]\nrules = ["overfit"]\nservice = true\n'
    settings = write(tmp_path, service)
    options = {
        "explain": ["s3://my-bucket/images/", "--job", "s3://my-bucket/m.tar.gz", "--clarify", "a"],
        "train": [],
    }[verb]

    assert run(verb, settings, *options) == 1
    assert "install the dependency group sdk" in capsys.readouterr().err
    assert run("train", write(tmp_path)) == 0


def test_predict_rejects_foreign_responses_and_files(
    account: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_with(account, '{"error": "no"}')
    settings, image = write(tmp_path), tmp_path / "a.png"
    image.write_bytes(b"png")

    assert run("predict", settings, image) == 1
    assert 'not a response of the server: {"error": "no"}' in capsys.readouterr().err
    assert run("predict", settings, tmp_path) == 1
    assert f"{tmp_path}: a folder: name its images" in capsys.readouterr().out


def test_image_that_the_endpoint_rejects_leaves_the_others(
    tmp_path: Path,
    stand_in: StandIn,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, images = write(tmp_path), [tmp_path / "a.png", tmp_path / "b.png"]
    for image in images:
        image.write_bytes(b"png")
    damaged = 'ModelError: 422 {"error": {"code": "x", "message": "the image is damaged"}}'
    answer = {"predictions": [{"class_name": "0L", "probability": 1}], "class_names": ["0L"]}
    stand_in.answer("sagemaker-runtime.InvokeEndpoint", damaged, answer)

    assert run("predict", settings, *images) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{images[0]}: the image is damaged\n{images[1]}: 0L (100.0%)\n"
    assert printed.err == "image-classifier: 1 of 2 images was rejected\n"
    stand_in.answer("sagemaker-runtime.InvokeEndpoint", "ModelError: 503 {}")
    assert run("predict", settings, *images) == 1
    assert "AWS rejected InvokeEndpoint: ModelError: 503" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "environment", "size_mb", "expected"),
    [
        ("real-time", "", 6, ""),
        ("real-time", "", 6.01, "has 6.1 MB, and real-time endpoints accept 6: shrink it, or use"),
        ("serverless", "", 4, ""),
        ("serverless", "", 5, "has 5 MB, and serverless endpoints accept 4: shrink it, or use"),
        ("serverless", 'SAGEMAKER_MAX_PAYLOAD_IN_MB = "2"', 3, "accept 2: raise SAGEMAKER_MAX_"),
        ("asynchronous", 'SAGEMAKER_MAX_PAYLOAD_IN_MB = "0"', 25, ""),
        ("asynchronous", "", 26, "accept 25: raise SAGEMAKER_MAX_PAYLOAD_IN_MB in [endpoint.envi"),
        ("asynchronous", 'SAGEMAKER_MAX_PAYLOAD_IN_MB = "1024"', 1024, ""),
        ("asynchronous", 'SAGEMAKER_MAX_PAYLOAD_IN_MB = "1024"', 1025, "accept 1024: shrink it"),
    ],
)
def test_size_of_an_image_is_limited_by_the_kind_of_endpoint(
    kind: str, environment: str, size_mb: float, expected: str, tmp_path: Path
) -> None:
    rest = f'[endpoint]\nkind = "{kind}"\nenvironment = {{ {environment} }}\n'
    endpoint = read(tmp_path, rest).settings.endpoint
    image = tmp_path / "a.png"
    with image.open("wb") as file:
        file.truncate(round(size_mb * 2**20))

    if not expected:
        assert size_mb <= endpoint.max_request_mb
        return
    with pytest.raises(UserError) as caught:
        prediction.read_image(image, endpoint)
    assert expected in str(caught.value)


def test_default_limit_of_a_request_is_the_servers() -> None:
    assert inference.SERVER_MB == server_settings.ONLINE_PAYLOAD_MB
    assert max(inference.PAYLOAD_MB.values()) == server_settings.ASYNC_PAYLOAD_MB


def test_transform_prints_the_prefix_of_its_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path)
    trained(settings, capsys)

    assert run("transform", settings, "s3://my-bucket/images/") == 0

    where = last_line(capsys)
    name = where.rsplit("/", 1)[1]
    job = client("sagemaker").describe_transform_job(TransformJobName=name)
    assert job["TransformOutput"]["S3OutputPath"] == where
    assert job["BatchStrategy"] == "SingleRecord"


def test_report_downloads_pages_only_into_its_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda _address: False)
    settings = write(tmp_path)
    name = trained(settings, capsys)
    put(f"hands/output/{name}/output/output.tar.gz", _archive({"report.html": b"<p>"}))
    put(f"hands/output/{name}/rule-output/ProfilerReport/profiler-report.html")
    put(f"hands/output/{name}/rule-output/../../evil.html")

    assert run("report", settings) == 0

    printed = capsys.readouterr()
    pages = [Path(line) for line in printed.out.splitlines()]
    assert f"no browser was found: open {pages[0]}\n" in printed.err
    assert {page.name for page in pages} == {"report.html", "profiler-report.html"}
    assert not list(tmp_path.rglob("evil.html"))

    put(f"hands/output/{name}/output/output.tar.gz", _archive({"../../evil.html": b""}))
    assert run("report", settings, "--no-open") == 1
    assert "cannot be extracted" in capsys.readouterr().err
    assert not list(tmp_path.rglob("evil.html"))


def _archive(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return file.getvalue()


def test_delete_lists_resources_then_deletes_all_of_them(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = write(tmp_path, ENDPOINT)
    trained(settings, capsys)
    put("hands/data/training/a/1.png")
    # Other settings, whose name has the same beginning.
    put("hands-2/output/x")
    other = tmp_path / "other"
    other.mkdir()
    others = write(other, ENDPOINT, BEGINNING.replace('"hands"', '"hands-2"'))
    assert run("train", others) == 0
    theirs = last_line(capsys)
    assert run("deploy", others, "--job", "s3://my-bucket/x/model.tar.gz") == 0
    assert run("deploy", settings) == 0
    capsys.readouterr()

    assert run("delete", settings) == 1
    printed = capsys.readouterr()
    assert "delete endpoint hands (InService)" in printed.out
    assert "no terminal to confirm on: add --yes" in printed.err
    assert run("status", settings) == 0
    assert "endpoint hands (InService)" in capsys.readouterr().out

    assert run("delete", settings, "--yes") == 0

    assert keys() == {"hands/data/training/a/1.png", "hands-2/output/x"}
    sagemaker = client("sagemaker")
    assert [e["EndpointName"] for e in sagemaker.list_endpoints()["Endpoints"]] == ["hands-2"]
    assert all("hands-2" in m["ModelName"] for m in sagemaker.list_models()["Models"])
    configs = sagemaker.list_endpoint_configs()["EndpointConfigs"]
    assert all("hands-2" in each["EndpointConfigName"] for each in configs)
    assert sagemaker.describe_training_job(TrainingJobName=theirs)
    capsys.readouterr()
    assert run("delete", settings, "--yes") == 0
    assert capsys.readouterr().out == "hands has nothing of yours to delete\n"


def test_rejections_by_aws_are_reported_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path)
    assert run("deploy", settings, "--job", "hands-none") == 1
    error = capsys.readouterr().err
    assert "image-classifier: AWS rejected DescribeTrainingJob: Validation" in error
    assert "`image-classifier status` lists the resources" in error

    assert run("deploy", settings) == 1
    assert "train first, or name --job" in capsys.readouterr().err

    no_bucket = write(tmp_path, "", BEGINNING.replace("my-bucket", "no-such-bucket"))
    assert run("delete", no_bucket, "--yes") == 1
    assert "NoSuchBucket" in (error := capsys.readouterr().err)
    assert "create the bucket" in error


def test_missing_credentials_or_region_are_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # Sessions keep the credentials of earlier tests.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    assert run("train", write(tmp_path)) == 1
    assert "no AWS credentials: run `aws configure`" in capsys.readouterr().err

    nowhere = BEGINNING.replace('region = "eu-west-1"\n', "")
    assert run("train", write(tmp_path, "", nowhere)) == 1
    assert "no region: set aws.region" in capsys.readouterr().err


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_dry_run_of_every_example_prints_requests_and_sends_none(
    example: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
    images = f'[images]\ntrain = "{registry}/t:a"\nserve = "{registry}/s:a"\n'
    settings = write(tmp_path, images, example.read_text(encoding="utf-8") + "\n")
    # No server has this address.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    operations = []

    for verb in (
        ["train", settings],
        ["tune", settings],
        ["deploy", settings, "--job", "s3://my-bucket/x/hands/output/model.tar.gz"],
        ["transform", settings, "s3://my-bucket/images/"],
    ):
        assert run(*verb, "--dry-run") == 0
        text = capsys.readouterr().out
        operations += [line.split('"')[1] for line in text.splitlines() if line[:3] == '  "']

    assert operations == [
        "CreateTrainingJob",
        "CreateHyperParameterTuningJob",
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "CreateModel",
        "CreateTransformJob",
    ]


def test_cost_lists_every_part_and_the_date_of_the_prices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, TUNING + '[training]\ninstance_type = "ml.m5.large"\nspot = true\n')

    assert run("cost", settings, "--hours", "10") == 0

    lines = capsys.readouterr().out.splitlines()
    # (0.115 + 30 GB x 0.14 / 730) x 0.4 x 10, and four of them.
    assert lines[0].split()[:3] == ["$0.48", "a", "job"]
    assert lines[1].split()[:3] == ["$1.93", "a", "tuning"]
    assert "2026-" in lines[-1]


def test_every_instance_has_one_price_with_source_and_date() -> None:
    lists = tomllib.loads(prices.PRICES.read_text(encoding="utf-8"))["lists"]

    names = [name for each in lists for name in each["instances"]]
    assert len(names) == len(set(names))
    assert set(names) <= set(service_model.choices("ProductionVariantInstanceType"))
    assert all(each["source"] and isinstance(each["read"], date) for each in lists)


def test_cost_of_an_endpoint_on_graviton(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cost", write(tmp_path, '[endpoint]\ninstance_type = "ml.c8g.xlarge"\n')) == 0

    assert "$0.19 an hour" in capsys.readouterr().out


def test_cost_of_an_instance_without_a_price_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cost", write(tmp_path, '[training]\ninstance_type = "ml.p5.48xlarge"\n')) == 0

    assert "price unknown a job" in capsys.readouterr().out
