"""Inference components for moto, which has none: SageMaker's calls and autoscaling of copies."""

import enum
import json
from datetime import UTC, datetime
from typing import Any

from moto.applicationautoscaling import models as scaling_models
from moto.applicationautoscaling import responses as scaling_responses
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

_DIMENSION = "sagemaker:inference-component:DesiredCopyCount"
_STORE = "inference_components"


def install() -> None:
    """Add the calls to moto's classes; each of its resets removes the components."""
    for method in (_create, _update, _describe, _delete):
        setattr(SageMakerResponse, f"{method.__name__.strip('_')}_inference_component", method)
    backends: Any = SageMakerModelBackend
    list_tags, validate = backends.list_tags, backends.validate_production_variants

    def list_any_tags(backend: Any, *, arn: str, **page: Any) -> Any:  # noqa: ANN401
        if ":inference-component/" in arn:
            return _store(backend)[arn.rpartition("/")[2]]["Tags"], None
        return list_tags(backend, arn=arn, **page)

    def validate_models(backend: Any, variants: list[dict[str, Any]]) -> None:  # noqa: ANN401
        validate(backend, [each for each in variants if "ModelName" in each])

    backends.list_tags, backends.validate_production_variants = list_any_tags, validate_models
    responses: Any = SageMakerResponse
    create_config = responses.create_endpoint_config

    def create_whole_config(response: Any) -> Any:  # noqa: ANN401
        result, request = create_config(response), json.loads(response.body)
        config = response.sagemaker_backend.endpoint_configs[request["EndpointConfigName"]]
        # moto describes its attributes.
        config.execution_role_arn = request.get("ExecutionRoleArn")
        config.enable_network_isolation = request.get("EnableNetworkIsolation")
        config.vpc_config = request.get("VpcConfig")
        return result

    responses.create_endpoint_config = create_whole_config
    known = scaling_models.ScalableDimensionValueSet
    extended = enum.Enum(  # type: ignore[misc]
        known.__name__, {each.name: each.value for each in known} | {"COPIES": _DIMENSION}
    )
    for module in (scaling_models, scaling_responses):
        setattr(module, known.__name__, extended)


def _store(backend: Any) -> dict[str, Any]:  # noqa: ANN401 - moto's own
    components: dict[str, Any] = vars(backend).setdefault(_STORE, {})
    return components


def _found(response: Any) -> tuple[dict[str, Any], dict[str, Any], str]:  # noqa: ANN401
    """Return the request, all components and the name of the request's."""
    request = json.loads(response.body)
    return request, _store(response.sagemaker_backend), request["InferenceComponentName"]


def _create(response: Any) -> str:  # noqa: ANN401
    request, store, name = _found(response)
    if name in store:
        raise ValidationError(message=f"inference component {name} exists already")
    backend = response.sagemaker_backend
    backend.describe_endpoint(request["EndpointName"])
    arn = f"arn:aws:sagemaker:{backend.region_name}:{backend.account_id}:inference-component/{name}"
    store[name] = request | {"InferenceComponentArn": arn}
    return json.dumps({"InferenceComponentArn": arn})


def _update(response: Any) -> str:  # noqa: ANN401
    request, store, name = _found(response)
    store[name] |= request
    return json.dumps({"InferenceComponentArn": store[name]["InferenceComponentArn"]})


def _describe(response: Any) -> str:  # noqa: ANN401
    _, store, name = _found(response)
    if name not in store:
        raise ValidationError(message=f"Could not find inference component {name}")
    now, copies = datetime.now(UTC).timestamp(), store[name]["RuntimeConfig"]["CopyCount"]
    described = store[name] | {
        "InferenceComponentStatus": "InService",
        "RuntimeConfig": {"DesiredCopyCount": copies, "CurrentCopyCount": copies},
        "EndpointArn": "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/hands",
        "CreationTime": now,
        "LastModifiedTime": now,
    }
    return json.dumps({key: value for key, value in described.items() if key != "Tags"})


def _delete(response: Any) -> str:  # noqa: ANN401
    _, store, name = _found(response)
    del store[name]
    return ""
