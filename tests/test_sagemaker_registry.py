"""Versions in the model registry, against moto's server: registered, approved, deployed."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from image_classifier.sagemaker import artifact
from tests.accounts import ENDPOINT, IGNORE_OPEN_CONNECTIONS, MODEL, backend, client, get, put, run
from tests.settings_files import REGISTRY, write

pytestmark = IGNORE_OPEN_CONNECTIONS


MANIFEST = {
    "format_version": 1,
    "class_names": ["cat", "dog"],
    "network": "small",
    "preprocessing": {"image_size": 32},
    "metrics": {
        "val_accuracy": 0.5,
        "classes": {},
        "test": {
            "test_accuracy": 0.75,
            "classes": {
                "cat": {"precision": 1.0, "recall": 0.5, "f1": 0.6, "images": 3},
                "dog": {"precision": 0.5, "recall": 1.0, "f1": 0.8, "images": 1},
            },
        },
    },
    "temperature": 1.0,
    "precision": "float32",
    "provenance": {"code_version": "abc", "training_data_sha256": "0" * 64},
    "files": {},
}


@pytest.fixture
def settings(account: str, tmp_path: Path) -> Path:
    """Settings of an account with an artifact on S3."""
    assert account
    put_artifact(MANIFEST)
    return write(tmp_path, ENDPOINT)


def put_artifact(manifest: dict[str, Any], **files: bytes) -> None:
    content = {"manifest.json": json.dumps(manifest).encode(), "golden/0.png": b"png"}
    content |= {"golden/answers.json": b"[]", "model.onnx": b"onnx"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, body in (content | files).items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    put("a/model.tar.gz", packed.getvalue())


def sagemaker() -> Any:  # noqa: ANN401 - made by boto3 as it runs
    return client("sagemaker")


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_register_writes_metrics_golden_images_and_a_copy_of_the_model(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("register", settings, "--job", MODEL) == 0

    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "1"
    assert "accuracy 75.0%" in printed.out
    assert "approve" in printed.err
    (summary,) = sagemaker().list_model_packages(ModelPackageGroupName="hands")[
        "ModelPackageSummaryList"
    ]
    assert summary["ModelApprovalStatus"] == "PendingManualApproval"
    arn = summary["ModelPackageArn"]
    package = sagemaker().describe_model_package(ModelPackageName=arn)
    (container,) = package["InferenceSpecification"]["Containers"]
    assert container["Image"].startswith(f"{REGISTRY}/image-classifier-serve")
    # Not below output/, which `delete` removes.
    assert container["ModelDataUrl"].startswith("s3://my-bucket/hands/registry/")
    assert get(container["ModelDataUrl"]) == get(MODEL)
    with tarfile.open(fileobj=io.BytesIO(get(package["SamplePayloadUrl"]))) as samples:
        assert samples.getnames() == ["0.png"]
    quality = json.loads(get(package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]))
    measured = quality["multiclass_classification_metrics"]
    assert {name: each["value"] for name, each in measured.items()} == pytest.approx(
        {
            "accuracy": 0.75,
            "weighted_precision": 0.875,
            "weighted_recall": 0.625,
            "weighted_f1": 0.65,
        }
    )
    assert package["CustomerMetadataProperties"]["code_version"] == "abc"


def test_only_an_approved_version_is_deployed(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert run("register", settings, "--job", MODEL) == 0
    assert last_line(capsys) == "2"
    assert run("deploy", settings, "--version", 1) == 1
    assert "version 1 of hands is PendingManualApproval: `image-cl" in capsys.readouterr().err
    assert run("approve", settings, "--version", 1) == 0
    assert run("approve", settings, "--reject") == 0
    assert last_line(capsys) == "2"

    assert run("status", settings) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == ["version 2 (Rejected)", "version 1 (Approved)"]
    assert run("deploy", settings, "--version", 1) == 0

    config = sagemaker().describe_endpoint(EndpointName="hands")["EndpointConfigName"]
    container = sagemaker().describe_model(ModelName=config)["PrimaryContainer"]
    assert container["ModelPackageName"].endswith("model-package/hands/1")
    assert "Image" not in container
    assert run("status", settings, "--json") == 0
    document = json.loads(last_line(capsys))
    assert {"kind": "ModelPackage", "name": "1", "status": "Approved"} in document
    assert run("deploy", settings, "--version", 7) == 1
    assert "hands has no version 7: the newest are 2, 1" in capsys.readouterr().err


def test_a_version_for_other_processors_is_not_deployed(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("register", settings, "--job", MODEL) == 0
    # moto's UpdateModelPackage would remove the properties, unlike SageMaker's.
    (package,) = backend().model_packages.values()
    package.model_approval_status = "Approved"
    images = f'images.serve_arm64="{REGISTRY}/s:abc-arm64"'
    arm64 = ["--set", 'endpoint.instance_type="ml.c7g.large"', "--set", images]

    assert run("deploy", settings, "--version", 1, *arm64) == 1

    assert "ml.c7g.large is arm64: register it with these settings" in capsys.readouterr().err
    multi = ["--set", 'endpoint.kind="multi-model"']
    assert run("deploy", settings, "--version", 1, *multi) == 1
    assert "a multi-model endpoint serves the models of" in capsys.readouterr().err


def test_what_cannot_be_registered_is_reported(
    settings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("approve", settings) == 1
    assert "hands has no versions: `image-classifier register`" in capsys.readouterr().err
    put("b/model.tar.gz", b"no archive")
    assert run("register", settings, "--job", "s3://my-bucket/b/model.tar.gz") == 1
    assert "b/model.tar.gz cannot be registered: " in capsys.readouterr().err
    put_artifact({**MANIFEST, "format_version": 2})
    assert run("register", settings, "--job", MODEL) == 1
    assert "cannot be registered: manifest.json is not of" in capsys.readouterr().err
    put_artifact(MANIFEST, **{"golden/1.png": b"0" * 2000})
    monkeypatch.setattr(artifact, "MAX_BYTES", 2000)
    assert run("register", settings, "--job", MODEL) == 1
    assert (
        "the manifest and golden images of s3://my-bucket/a/model.tar.gz have more than"
        in capsys.readouterr().err
    )
    assert not sagemaker().list_model_package_groups()["ModelPackageGroupSummaryList"]


def test_a_model_without_metrics_is_registered_without_quality(settings: Path) -> None:
    put_artifact({**MANIFEST, "metrics": {"int8": None}})

    assert run("register", settings, "--job", MODEL) == 0

    (summary,) = sagemaker().list_model_packages(ModelPackageGroupName="hands")[
        "ModelPackageSummaryList"
    ]
    arn = summary["ModelPackageArn"]
    assert "ModelMetrics" not in sagemaker().describe_model_package(ModelPackageName=arn)


def test_dry_runs_of_the_registry_print_requests_and_send_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    settings = write(tmp_path, ENDPOINT)

    for arguments, operation in (
        (["register", settings], "CreateModelPackage"),
        (["approve", settings, "--version", 3], "UpdateModelPackage"),
        (["deploy", settings, "--version", 3], "CreateModel"),
    ):
        assert run(*arguments, "--dry-run") == 0
        assert f'"{operation}": {{' in capsys.readouterr().out


@pytest.mark.parametrize("other", ["--local", "--job=x"])
def test_deploy_takes_a_version_or_a_job(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("deploy", write(tmp_path), "--version", 1, other)
    assert "--version is for SageMaker, instead of --job" in capsys.readouterr().err
