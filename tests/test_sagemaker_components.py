"""Real-time endpoints that scale to zero: their inference components, on moto and scripted."""

from pathlib import Path
from typing import Any

import pytest

from image_classifier.sagemaker import endpoint_requests
from tests.accounts import MODEL, ON_ACCOUNT, StandIn, backend, client, run
from tests.settings_files import BEGINNING, read, write
from tests.test_sagemaker_rollout import write_log
from tests.test_sagemaker_scaling import SCALING, alarms, policies

pytestmark = ON_ACCOUNT

TAGS = [
    {"Key": "image-classifier", "Value": "hands"},
    {"Key": "image-classifier-creator", "Value": "user/moto"},
]

TO_ZERO = f"{SCALING}min_instances = 0\nmax_instances = 3\ninvocations_per_minute = 120\n"


def component() -> Any:  # noqa: ANN401 - boto3 has no types for it
    """Return the description of the component."""
    return client("sagemaker").describe_inference_component(InferenceComponentName="hands")


def no_component() -> bool:
    """Return whether it does not exist."""
    sagemaker = client("sagemaker")
    try:
        sagemaker.describe_inference_component(InferenceComponentName="hands")
    except sagemaker.exceptions.ClientError as error:
        return "Could not find" in str(error)
    return False


def targets() -> list[Any]:
    """Return the scaled resources."""
    scaling = client("application-autoscaling")
    found = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    keys = ("ResourceId", "ScalableDimension", "MinCapacity", "MaxCapacity")
    return [tuple(each[key] for key in keys) for each in found]


def test_deploy_creates_a_component_that_scales_to_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, TO_ZERO)

    assert run("deploy", settings, "--job", MODEL) == 0

    model = component()["Specification"]["ModelName"]
    (config,) = backend().endpoint_configs.values()
    (variant,) = config.production_variants
    assert "ModelName" not in variant
    assert variant["ManagedInstanceScaling"] == {
        "Status": "ENABLED",
        "MinInstanceCount": 0,
        "MaxInstanceCount": 3,
    }
    assert model == config.endpoint_config_name
    dimension = "sagemaker:inference-component:DesiredCopyCount"
    assert targets() == [("inference-component/hands", dimension, 0, 3)]
    found = policies()
    assert found["hands-requests"]["TargetTrackingScalingPolicyConfiguration"] == {
        "TargetValue": 120.0,
        "PredefinedMetricSpecification": {
            "PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"
        },
        "ScaleOutCooldown": 60,
        "ScaleInCooldown": 300,
    }
    step = found["hands-start"]["StepScalingPolicyConfiguration"]
    assert step["StepAdjustments"] == [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}]
    (alarm,) = alarms()
    assert (alarm["MetricName"], alarm["Statistic"]) == ("NoCapacityInvocationFailures", "Sum")
    assert alarm["Dimensions"] == [{"Name": "InferenceComponentName", "Value": "hands"}]
    assert alarm["AlarmActions"] == [found["hands-start"]["PolicyARN"]]

    capsys.readouterr()
    assert run("status", settings) == 0
    assert "inference component hands (InService, copies: 1)\n" in capsys.readouterr().out
    assert run("delete", settings, "--yes") == 0
    lines = capsys.readouterr().out.splitlines()
    deleted = [line for line in lines if line.startswith("deleted ")]
    assert deleted.index("deleted inference component hands (InService, copies: 1)") < (
        deleted.index("deleted endpoint hands (InService)")
    )
    assert (targets(), alarms(), no_component()) == ([], [], True)


def test_update_changes_only_the_model_of_the_component(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = write(tmp_path, TO_ZERO)
    assert run("deploy", settings, "--job", MODEL) == 0
    before = component()["Specification"]["ModelName"]
    monkeypatch.setattr("time.strftime", lambda *_: "301231-235959")

    assert run("deploy", settings, "--job", MODEL) == 0

    assert component()["Specification"]["ModelName"] == "hands-301231-235959" != before
    assert list(backend().endpoint_configs) == [before]
    assert len(targets()) == len(alarms()) == 1


def test_update_that_needs_a_new_endpoint_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, TO_ZERO)
    assert run("deploy", settings, "--job", MODEL) == 0

    for change, expected in (
        ("endpoint.instance_type=ml.m5.xlarge", "has another InstanceType than the settings"),
        ("endpoint.scaling.max_instances=9", "has another MaxInstanceCount than the settings"),
        ("aws.kms_key=1234abcd", "has another KmsKeyId than the settings"),
        ("endpoint.scaling.min_instances=1", "was created with an inference component"),
    ):
        assert run("deploy", settings, "--job", MODEL, "--set", change) == 1
        assert f"the endpoint hands {expected}" in capsys.readouterr().err
    assert len(client("sagemaker").list_models()["Models"]) == 1


def test_endpoint_without_a_component_cannot_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deploy", write(tmp_path, SCALING), "--job", MODEL) == 0

    assert run("deploy", write(tmp_path, TO_ZERO), "--job", MODEL) == 1

    reason = "the endpoint hands was created without an inference component"
    assert reason in capsys.readouterr().err


def described(status: str) -> dict[str, object]:
    """Return a description of a component with an earlier model."""
    names = {"InferenceComponentName": "hands", "InferenceComponentStatus": status}
    arns = {"InferenceComponentArn": "a" * 20, "EndpointArn": "a" * 20}
    times = {"CreationTime": 1, "LastModifiedTime": 1}
    reason = {"FailureReason": "not enough hardware resources"}
    return {**names, **arns, **times, **reason, "Specification": {"ModelName": "hands-old"}}


@pytest.mark.parametrize(
    ("last", "expected"),
    [("Failed", "is Failed"), ("InService", "was rolled back to hands-old, it does not serve ")],
)
def test_component_that_fails_is_reported_with_its_log(
    last: str,
    expected: str,
    stand_in: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # It does not exist before the deployment, and after that of the endpoint.
    states = ["ValidationException"] * 2 + [described("Creating"), described(last)]
    stand_in.answer("sagemaker.DescribeInferenceComponent", *states)
    write_log(["out of memory"], "/aws/sagemaker/InferenceComponents/hands")

    assert run("deploy", write(tmp_path, TO_ZERO), "--job", MODEL) == 1

    printed = capsys.readouterr().err
    assert f"the inference component hands {expected}" in printed
    assert ": not enough hardware resources\nlast lines of the log:\nout of memory\n" in printed
    assert targets() == []


def test_component_that_changes_is_not_updated(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, TO_ZERO)
    assert run("deploy", settings, "--job", MODEL) == 0
    stand_in.answer("sagemaker.ListTags", {"Tags": TAGS})
    stand_in.answer("sagemaker.DescribeInferenceComponent", described("Updating"))

    assert run("deploy", settings, "--job", MODEL) == 1

    reason = "the inference component hands (Updating, copies: 0) changes: wait until"
    assert reason in capsys.readouterr().err
    assert len(client("sagemaker").list_models()["Models"]) == 1


def test_predict_waits_for_the_first_instance(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"png")
    no_capacity = "ValidationError: Inference Component has no capacity to process this request."
    prediction = {"class_name": "dog", "probability": 1.0, "probabilities": [0.0, 1.0]}
    answer = {"predictions": [prediction], "class_names": ["cat", "dog"]}
    stand_in.answer("sagemaker-runtime.InvokeEndpoint", no_capacity, no_capacity, answer)
    settings = write(tmp_path, TO_ZERO)

    assert run("predict", settings, image) == 0

    printed = capsys.readouterr()
    assert printed.out.startswith(f"{image}: dog (100")
    notice, *_ = printed.err.splitlines()
    assert notice == "the endpoint hands starts an instance, which takes minutes"
    stand_in.answer("sagemaker-runtime.InvokeEndpoint", "ValidationError: Endpoint hands not found")
    assert run("predict", settings, image) == 1
    assert "Endpoint hands not found" in capsys.readouterr().err


def test_component_of_an_expired_endpoint_is_replaced(tmp_path: Path) -> None:
    settings = write(tmp_path, TO_ZERO)
    assert run("deploy", settings, "--job", MODEL) == 0
    # As the schedule of --expires does.
    client("sagemaker").delete_endpoint(EndpointName="hands")

    assert run("deploy", settings, "--job", MODEL) == 0
    client("sagemaker").delete_endpoint(EndpointName="hands")
    assert run("delete", settings, "--yes") == 0
    assert no_component()


def test_component_of_another_user_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = write(tmp_path, TO_ZERO)
    assert run("deploy", settings, "--job", MODEL) == 0
    client("sagemaker").delete_endpoint(EndpointName="hands")
    monkeypatch.setattr("image_classifier.sagemaker.aws.creator", lambda _arn: "user/berta")

    assert run("delete", settings, "--yes") == 0
    assert component()
    capsys.readouterr()
    assert run("deploy", settings, "--job", MODEL) == 1
    reason = "the inference component hands belongs to user/moto, and you are user/berta"
    assert reason in capsys.readouterr().err
    assert not backend().endpoints


def test_dry_run_shows_the_component(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    settings = write(tmp_path, TO_ZERO)

    assert run("deploy", settings, "--job", MODEL, "--dry-run") == 0
    assert '"CreateInferenceComponent": {' in capsys.readouterr().out
    assert run("predict", settings, tmp_path / "a.png", "--dry-run") == 0
    assert '"InferenceComponentName": "hands"' in capsys.readouterr().out
    assert run("explain", settings, tmp_path / "a.png", "--dry-run") == 0
    assert '"InferenceComponentName": "hands"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("instance_type", "expected"),
    [
        ("ml.c8g.medium", {"NumberOfCpuCoresRequired": 0.75}),
        ("ml.m5.large", {"NumberOfCpuCoresRequired": 1.25}),
        ("ml.c7i.2xlarge", {"NumberOfCpuCoresRequired": 4.25}),
        (
            "ml.g5.xlarge",
            {"NumberOfCpuCoresRequired": 2.25, "NumberOfAcceleratorDevicesRequired": 1},
        ),
    ],
)
def test_two_copies_do_not_fit_on_an_instance(
    instance_type: str, expected: dict[str, float], tmp_path: Path
) -> None:
    settings = read(tmp_path, TO_ZERO.replace("ml.m5.large", instance_type)).settings

    request: Any = endpoint_requests.inference_component(settings, "hands-1")

    resources = request["Specification"]["ComputeResourceRequirements"]
    assert resources == expected | {"MinMemoryRequiredInMb": 1024}


def test_network_settings_are_those_of_the_endpoint(tmp_path: Path) -> None:
    network = 'network_isolation = true\nsubnets = ["subnet-1"]\nsecurity_groups = ["sg-1"]\n'
    beginning = BEGINNING.replace("[images]", f"{network}[images]")
    settings = read(
        tmp_path, TO_ZERO + '[data]\nchannels = ["train", "val", "weights"]\n', beginning
    ).settings

    request = endpoint_requests.endpoint_config(settings, "hands-1")

    assert request["EnableNetworkIsolation"]
    assert request["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    assert str(request["ExecutionRoleArn"]).endswith("role/image-classifier")
