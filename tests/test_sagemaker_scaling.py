"""Autoscaling of endpoints: what Application Auto Scaling and CloudWatch of moto receive."""

import json
from pathlib import Path
from typing import Any

import pytest

from image_classifier.sagemaker import endpoint_requests
from tests.accounts import MODEL, ON_ACCOUNT, StandIn, backend, client, run
from tests.settings_files import read, write

pytestmark = ON_ACCOUNT

SCALING = '[endpoint]\ninstance_type = "ml.m5.large"\n[endpoint.scaling]\n'
TO_ZERO = '[endpoint]\ninstance_type = "ml.m5.large"\nkind = "asynchronous"\n[endpoint.scaling]\n'
TO_ZERO += "min_instances = 0\nmax_instances = 3\nbacklog = 7\n"


def policies() -> dict[str, Any]:
    """Return the endpoint's scaling policies by name."""
    scaling = client("application-autoscaling")
    found = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    return {each["PolicyName"]: each for each in found}


def limits() -> list[tuple[int, int]]:
    """Return least and largest number of instances of every scaled endpoint."""
    scaling = client("application-autoscaling")
    found = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert all(each["ResourceId"] == "endpoint/hands/variant/AllTraffic" for each in found)
    return [(each["MinCapacity"], each["MaxCapacity"]) for each in found]


def alarms() -> list[Any]:
    """Return the alarms, without those that Application Auto Scaling makes for its policies."""
    found = client("cloudwatch").describe_alarms()["MetricAlarms"]
    return [each for each in found if not each["AlarmName"].startswith("TargetTracking")]


def test_deploy_scales_by_requests_per_instance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, f"{SCALING}max_instances = 6\ninvocations_per_minute = 300\n")

    assert run("deploy", settings, "--job", MODEL) == 0

    assert "the endpoint hands scales from 1 to 6 instances" in capsys.readouterr().out
    assert limits() == [(1, 6)]
    (policy,) = policies().values()
    assert policy["TargetTrackingScalingPolicyConfiguration"] == {
        "TargetValue": 300.0,
        "PredefinedMetricSpecification": {
            "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
        },
        "ScaleOutCooldown": 60,
        "ScaleInCooldown": 300,
    }
    assert alarms() == []

    assert run("status", settings) == 0
    assert "autoscaling of the endpoint from 1 to 6 instances\n" in capsys.readouterr().out
    assert run("delete", settings, "--yes") == 0
    assert "deleted autoscaling of the endpoint from 1 to 6 instances" in capsys.readouterr().out
    assert limits() == []


def test_asynchronous_endpoint_scales_to_zero_and_starts_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, TO_ZERO)

    assert run("deploy", settings, "--job", MODEL) == 0

    assert limits() == [(0, 3)]
    found = policies()
    tracking = found["hands-requests"]["TargetTrackingScalingPolicyConfiguration"]
    metric = tracking["CustomizedMetricSpecification"]
    assert (metric["MetricName"], tracking["TargetValue"]) == (
        "ApproximateBacklogSizePerInstance",
        7.0,
    )
    step = found["hands-start"]["StepScalingPolicyConfiguration"]
    assert step["StepAdjustments"] == [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}]
    (alarm,) = alarms()
    assert alarm["AlarmName"] == "hands-backlog"
    assert alarm["MetricName"] == "HasBacklogWithoutCapacity"
    assert alarm["AlarmActions"] == [found["hands-start"]["PolicyARN"]]

    capsys.readouterr()
    assert run("status", settings, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in document][-2:] == ["ScalableTarget", "Alarm"]
    assert run("delete", settings, "--yes") == 0
    assert (limits(), alarms()) == ([], [])


def test_update_removes_scaling_that_the_settings_no_longer_have(
    tmp_path: Path, stand_in: StandIn
) -> None:
    assert run("deploy", write(tmp_path, TO_ZERO), "--job", MODEL) == 0
    stand_in.answer("sagemaker.UpdateEndpoint", {"EndpointArn": "arn:aws:sagemaker:eu-west-1:1:e"})

    def described() -> dict[str, object]:
        config = stand_in.sent("UpdateEndpoint")[0]["EndpointConfigName"]
        # Removed before the update.
        assert (limits(), alarms()) == ([], [])
        return {"EndpointStatus": "InService", "EndpointConfigName": config}

    stand_in.answer("sagemaker.DescribeEndpoint", described)
    plain = TO_ZERO.partition("[endpoint.scaling]")[0]

    assert run("deploy", write(tmp_path, plain), "--job", MODEL) == 0
    assert (limits(), alarms()) == ([], [])


def test_new_endpoint_does_not_take_the_scaling_of_an_earlier_one(tmp_path: Path) -> None:
    assert run("deploy", write(tmp_path, TO_ZERO), "--job", MODEL) == 0
    # As the schedule of --expires does.
    client("sagemaker").delete_endpoint(EndpointName="hands")

    plain = TO_ZERO.partition("[endpoint.scaling]")[0]
    assert run("deploy", write(tmp_path, plain), "--job", MODEL) == 0

    assert (limits(), alarms()) == ([], [])


def test_update_of_a_scaled_endpoint_keeps_its_instances(tmp_path: Path) -> None:
    request: dict[str, Any] = endpoint_requests.update(read(tmp_path, SCALING).settings)

    assert request["RetainAllVariantProperties"]
    kept = {"DesiredInstanceCount"}
    excluded = {each["VariantPropertyType"] for each in request["ExcludeRetainedVariantProperties"]}
    assert excluded | kept == {"DesiredInstanceCount", "DesiredWeight", "DataCaptureConfig"}
    assert endpoint_requests.update(read(tmp_path, TO_ZERO).settings) == {}


def test_scaling_needs_an_endpoint_in_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deploy", write(tmp_path, SCALING), "--job", MODEL, "--no-wait") == 1

    assert "endpoint.scaling needs an endpoint that is InService" in capsys.readouterr().err


def test_rejected_autoscaling_is_a_failure_with_its_reason(
    tmp_path: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.answer("application-autoscaling.RegisterScalableTarget", "AccessDeniedException")

    assert run("deploy", write(tmp_path, SCALING), "--job", MODEL) == 1

    assert "AWS rejected RegisterScalableTarget: AccessDenied" in capsys.readouterr().err
    assert "hands" in backend().endpoints


def test_users_without_permissions_for_autoscaling_deploy_and_delete(
    tmp_path: Path, stand_in: StandIn
) -> None:
    stand_in.answer("application-autoscaling.DescribeScalableTargets", "AccessDeniedException")
    stand_in.answer("scheduler.GetSchedule", "AccessDeniedException")
    settings = write(tmp_path, '[endpoint]\ninstance_type = "ml.m5.large"\n')

    assert run("deploy", settings, "--job", MODEL) == 0
    assert run("status", settings) == 0
    assert run("delete", settings, "--yes") == 0
