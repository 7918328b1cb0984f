"""Autoscaling of the endpoint: requests to Application Auto Scaling and CloudWatch."""

from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.endpoint_requests import VARIANT
from image_classifier.sagemaker.request_fields import tags
from image_classifier.settings.inference import Scaling
from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request

SERVICE = "application-autoscaling"


def target(settings: Settings) -> dict[str, str]:
    """Return the fields that name the endpoint's instances, or copies on one instance each."""
    if settings.endpoint.has_component:
        return {
            "ServiceNamespace": "sagemaker",
            "ResourceId": component_id(settings),
            "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
        }
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": variant_id(settings),
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def variant_id(settings: Settings) -> str:
    """Return the name of the endpoint's instances for Application Auto Scaling."""
    return f"endpoint/{settings.name}/variant/{VARIANT}"


def component_id(settings: Settings) -> str:
    """Return the name of the inference component for Application Auto Scaling."""
    return f"inference-component/{settings.name}"


def alarm_name(settings: Settings) -> str:
    """Return the name of the alarm that starts the first instance."""
    return f"{settings.name}-backlog"


def register(aws: Aws, settings: Settings, scaling: Scaling) -> None:
    """Scale an endpoint that is in service.

    Raises:
        UserError: AWS rejected a request.
    """
    limits = {"MinCapacity": scaling.min_instances, "MaxCapacity": scaling.max_instances}
    aws.send("RegisterScalableTarget", {**target(settings), **limits}, SERVICE)
    aws.send("PutScalingPolicy", tracking_policy(settings, scaling), SERVICE)
    if scaling.min_instances == 0:
        response = aws.send("PutScalingPolicy", start_policy(settings, scaling), SERVICE)
        # A dry run has no policy.
        arn = str(response.get("PolicyARN", "arn:aws:autoscaling:PLACEHOLDER"))
        aws.send("PutMetricAlarm", alarm(settings, arn), "cloudwatch")
    aws.show(
        f"the endpoint {settings.name} scales from {scaling.min_instances} to "
        f"{scaling.max_instances} instances"
    )


def tracking_policy(settings: Settings, scaling: Scaling) -> Request:
    """Return PutScalingPolicy, which keeps the requests per instance at the settings' number."""
    dimensions = [{"Name": "EndpointName", "Value": settings.name}]
    metric: Request
    if settings.endpoint.kind == "asynchronous":
        value = scaling.backlog
        metric = {
            "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Namespace": "AWS/SageMaker",
                "Dimensions": dimensions,
                "Statistic": "Average",
            }
        }
    else:
        value = scaling.invocations_per_minute
        kind = "SageMakerVariantInvocationsPerInstance"
        if settings.endpoint.has_component:
            kind = "SageMakerInferenceComponentInvocationsPerCopy"
        metric = {"PredefinedMetricSpecification": {"PredefinedMetricType": kind}}
    return target(settings) | {
        "PolicyName": f"{settings.name}-requests",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": float(value),
            "ScaleOutCooldown": scaling.scale_out_minutes * 60,
            "ScaleInCooldown": scaling.scale_in_minutes * 60,
            **metric,
        },
    }


def start_policy(settings: Settings, scaling: Scaling) -> Request:
    """Return PutScalingPolicy, which starts the first instance.

    Without instances there is no backlog per instance that the other policy could track.
    """
    return target(settings) | {
        "PolicyName": f"{settings.name}-start",
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": {
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Maximum",
            "Cooldown": scaling.scale_out_minutes * 60,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    }


def alarm(settings: Settings, policy: str) -> Request:
    """Return PutMetricAlarm for requests that wait, or fail, while there is no instance."""
    metric, dimension, statistic = "HasBacklogWithoutCapacity", "EndpointName", "Average"
    if settings.endpoint.has_component:
        metric, dimension = "NoCapacityInvocationFailures", "InferenceComponentName"
        statistic = "Sum"
    return {
        "AlarmName": alarm_name(settings),
        "Namespace": "AWS/SageMaker",
        "MetricName": metric,
        "Dimensions": [{"Name": dimension, "Value": settings.name}],
        "Statistic": statistic,
        "Period": 60,
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "Threshold": 1.0,
        "TreatMissingData": "missing",
        "AlarmActions": [policy],
        "Tags": tags(settings),
    }
