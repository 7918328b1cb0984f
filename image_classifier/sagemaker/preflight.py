"""`check --account`: what would fail on SageMaker, before anything costs money.

What the current user may not read is reported, and does not fail the check.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any
from urllib.request import urlopen

from container.classifier.errors import UserError
from container.classifier.media_types import IMAGE_SUFFIXES
from image_classifier.sagemaker.aws import Aws, NoAccountError
from image_classifier.sagemaker.s3 import S3Uri
from image_classifier.settings.schema import Settings
from image_classifier.settings.settings_file import SettingsFile

# SageMaker rejects every other format.
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_MANIFESTS = (
    _DOCKER_MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/"
    r"(?P<repository>[^:@]+)(?:@(?P<digest>sha256:\w+)|:(?P<tag>[^:@]+))?"
)
_SERVICE = "sagemaker.amazonaws.com"
_CONFIG_SECONDS, _MAX_CONFIG_BYTES = 10, 1_000_000


@dataclass(frozen=True, slots=True)
class Findings:
    """Problems of the account, and what was not checked."""

    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What could not be checked, and why."""


def check(aws: Aws, file: SettingsFile) -> Findings:
    """Check quotas, role, bucket, container images and data of the settings.

    Raises:
        UserError: the settings lack a key that training needs, or there are no credentials.
    """
    file.require("train")
    findings = Findings()
    checks = {
        "bucket": _check_bucket,
        "quotas": _check_quotas,
        "role": _check_role,
        "container images": _check_container_images,
        "data": _check_data,
    }
    for name, one in checks.items():
        try:
            one(aws, file.settings, findings)
        except NoAccountError:
            raise
        except UserError as error:
            findings.unchecked.append(f"{name}: {error}")
    return findings


def _check_bucket(aws: Aws, settings: Settings, findings: Findings) -> None:
    bucket, region = settings.aws.bucket, aws.client("s3").meta.region_name
    request = {"Bucket": bucket}
    response = aws.query_unless({"NoSuchBucket"}, "GetBucketLocation", request, "s3")
    if response is None:
        problem = f"aws.bucket {bucket} does not exist: create it, or name another one"
        findings.problems.append(problem)
        return
    # Names of the API's first years.
    found = response.get("LocationConstraint") or "us-east-1"
    found = "eu-west-1" if found == "EU" else found
    if found != region:
        problem = f"aws.bucket {bucket} is in {found}, and jobs run in {region}: use a bucket there"
        findings.problems.append(problem)


def _check_quotas(aws: Aws, settings: Settings, findings: Findings) -> None:
    job, endpoint, transform = settings.training, settings.endpoint, settings.transform
    kind = "spot training job" if job.spot else "training job"
    parallel = 1 if settings.tuning is None else settings.tuning.parallel
    needed = {f"{job.instance_type} for {kind} usage": ("training", job.instance_count * parallel)}
    if endpoint.kind != "serverless":
        name = f"{endpoint.instance_type} for endpoint usage"
        scaled = endpoint.scaling.max_instances if endpoint.scaling else 0
        needed[name] = ("endpoint", max(endpoint.instance_count, scaled))
    if "transform" in settings.model_fields_set:
        name = f"{transform.instance_type} for transform job usage"
        needed[name] = ("transform", transform.instance_count)
    pages = aws.pages("ListServiceQuotas", {"ServiceCode": "sagemaker"}, "service-quotas")
    values = {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}
    for name, (section, count) in needed.items():
        if name not in values:
            needs = f"[{section}] needs {count}"
            reason = "Service Quotas does not list it"
            findings.unchecked.append(f"the quota '{name}' ({needs}): {reason}")
        elif (value := values[name]) < count:
            findings.problems.append(
                f"the quota '{name}' is {value:g}, and [{section}] needs {count}: request a higher "
                "one in Service Quotas, or use another instance type"
            )


def _check_role(aws: Aws, settings: Settings, findings: Findings) -> None:
    arn = settings.aws.role
    name = arn.rpartition("/")[2]
    role = aws.query("GetRole", {"RoleName": name}, "iam")["Role"]
    _check_trust(name, role["AssumeRolePolicyDocument"], findings)
    # Others than `aws` are those of China and of GovCloud.
    partition, account = arn.split(":")[1], arn.split(":")[4]
    bucket = f"arn:{partition}:s3:::{settings.aws.bucket}"
    images = settings.channels_uri.removeprefix("s3://")
    output = f"{bucket}/{settings.name}/output/model.tar.gz"
    wanted = {
        "s3:GetObject": f"arn:{partition}:s3:::{images}/image.jpg",
        "s3:PutObject": output,
        "s3:ListBucket": bucket,
        "ecr:GetAuthorizationToken": "*",
        "logs:PutLogEvents": "*",
    }
    prefix = {"ContextKeyName": "s3:prefix", "ContextKeyType": "string"}
    for action, resource in wanted.items():
        request = {
            "PolicySourceArn": arn,
            "ActionNames": [action],
            "ResourceArns": [resource],
            "ContextEntries": [prefix | {"ContextKeyValues": [f"{settings.name}/output"]}],
        }
        if action == "logs:PutLogEvents":
            region = aws.client("s3").meta.region_name
            group = f"arn:{partition}:logs:{region}:{account}:log-group:/aws/sagemaker/TrainingJobs"
            request["ResourceArns"] = [f"{group}:log-stream:x"]
        (result,) = aws.query("SimulatePrincipalPolicy", request, "iam")["EvaluationResults"]
        if result["EvalDecision"] != "allowed":
            denied = f"{action} on {request['ResourceArns'][0]}"
            findings.problems.append(f"aws.role {name} may not {denied}: see role.json")


def _check_trust(role: str, document: Mapping[str, Any], findings: Findings) -> None:
    """Check that SageMaker may assume the role."""
    statements = _listed(document["Statement"])
    applying = [each for each in statements if _applies(each)]
    denied = [each for each in applying if each["Effect"] == "Deny"]
    if not any(each["Effect"] == "Allow" for each in applying):
        problem = f"does not trust {_SERVICE}: see role-trust.json"
        findings.problems.append(f"aws.role {role} {problem}")
    elif any("Condition" not in each for each in denied):
        problem = f"denies {_SERVICE} in its trust policy: remove that statement"
        findings.problems.append(f"aws.role {role} {problem}")
    elif denied:
        unchecked = f"the condition of a Deny for {_SERVICE} in the trust policy of {role}"
        findings.unchecked.append(unchecked)


def _applies(statement: Mapping[str, Any]) -> bool:
    """Return whether a statement of a trust policy is about SageMaker assuming the role."""
    is_negated = "NotPrincipal" in statement
    principal = statement.get("NotPrincipal" if is_negated else "Principal", {})
    named = principal if isinstance(principal, dict) else {"AWS": principal}
    # `*` includes services only where it denies.
    is_any = statement["Effect"] == "Deny" and "*" in _listed(named.get("AWS", []))
    is_named = is_any or _SERVICE in _listed(named.get("Service", []))
    patterns = _listed(statement.get("Action", statement.get("NotAction", [])))
    is_matched = any(fnmatch("sts:assumerole", pattern.lower()) for pattern in patterns)
    return is_named != is_negated and is_matched == ("Action" in statement)


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 - a value or a list of them
    return value if isinstance(value, list) else [value]


def _check_container_images(aws: Aws, settings: Settings, findings: Findings) -> None:
    images, endpoint = settings.images, settings.endpoint
    serve = ("serve_arm64", "arm64") if endpoint.is_arm64 else ("serve", "amd64")
    for key, architecture in (("train", "amd64"), serve):
        uri = getattr(images, key)
        if uri is not None and (problem := _problem(aws, uri, architecture)):
            findings.problems.append(f"images.{key} {uri} {problem}")


def _problem(aws: Aws, uri: str, architecture: str) -> str | None:
    match = _IMAGE.fullmatch(uri)
    if match is None:
        return "is not an address in ECR"
    chosen = {"imageDigest": match["digest"]} if match["digest"] else {}
    chosen = chosen or {"imageTag": match["tag"] or "latest"}
    where = {"registryId": match["account"], "repositoryName": match["repository"]}
    request = where | {"imageIds": [chosen], "acceptedMediaTypes": list(_MANIFESTS)}
    missing = {"RepositoryNotFoundException"}
    response = aws.query_unless(missing, "BatchGetImage", request, "ecr")
    found = response["images"] if response is not None else []
    if not found:
        return "does not exist: run push.sh"
    manifest = json.loads(found[0]["imageManifest"])
    kind = found[0].get("imageManifestMediaType") or manifest.get("mediaType")
    if kind != _DOCKER_MANIFEST:
        return f"has a manifest of type {kind}, which SageMaker rejects: push it with push.sh"
    layer = where | {"layerDigest": manifest["config"]["digest"]}
    address = aws.query("GetDownloadUrlForLayer", layer, "ecr")["downloadUrl"]
    try:
        # ECR's own address.
        with urlopen(address, timeout=_CONFIG_SECONDS) as opened:  # noqa: S310
            config = json.loads(opened.read(_MAX_CONFIG_BYTES))
        built = str(config["architecture"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"the configuration of {uri} cannot be read: {error}") from None
    if built != architecture:
        return f"is for {built}, and the instances are {architecture}: build it for that platform"
    return None


def _check_data(aws: Aws, settings: Settings, findings: Findings) -> None:
    copied = images = 0
    for channel in settings.data.channels:
        prefix = S3Uri.parse(f"{settings.channels_uri}/{channel}/")
        sizes = {str(each["Key"]): int(each["Size"]) for each in prefix.objects(aws)}
        copied += sum(sizes.values())
        images += sum(PurePosixPath(key).suffix.lower() in IMAGE_SUFFIXES for key in sizes)
        if not sizes:
            problem = f"has no objects at {prefix}: `image-classifier upload`"
            findings.problems.append(f"the channel {channel} {problem}")
    # The training program decodes every image once, into a file on the volume.
    side, volume = settings.image_size, settings.training.volume_gb
    decoded, is_copied = 3 * side**2 * images, settings.data.mode == "File"
    if (decoded + copied * is_copied) > volume * 1e9:
        parts = [f"{copied / 1e9:.1f} GB in the channels and "] if is_copied else []
        parts += [f"{decoded / 1e9:.1f} GB for {images} images decoded at {side} pixels"]
        remedy = 'set data.mode = "FastFile"' if is_copied else "use a smaller image_size"
        findings.problems.append(
            f"a training job needs room for {''.join(parts)}, and training.volume_gb is {volume}: "
            f"raise it, or {remedy}"
        )
