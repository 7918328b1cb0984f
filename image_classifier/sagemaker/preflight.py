"""`check --account`: what would fail on SageMaker, before anything costs money.

What the current user may not read is reported, and does not fail the check.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from urllib.request import urlopen

from botocore.exceptions import ClientError

from container.classifier.errors import UserError
from image_classifier.sagemaker.aws import Aws, NoAccountError, explained
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
_CONFIG_SECONDS, _MAX_CONFIG_BYTES = 10, 1_000_000


class Findings(NamedTuple):
    """Problems of the account, and what was not checked."""

    problems: Sequence[str]
    notes: Sequence[str]
    """What could not be checked."""


def check(aws: Aws, file: SettingsFile) -> Findings:
    """Check quotas, role, bucket, container images and data of the settings.

    Raises:
        UserError: the settings lack a key that training needs, or there are no credentials.
    """
    file.require("train")
    problems: list[str] = []
    notes: list[str] = []
    checks: Sequence[Callable[[Aws, Settings], Iterator[str]]] = (
        _bucket,
        _quotas,
        _role,
        _container_images,
        _data,
    )
    for one in checks:
        try:
            problems += one(aws, file.settings)
        except NoAccountError:
            raise
        except UserError as error:
            notes.append(f"not checked: {one.__name__.strip('_').replace('_', ' ')}: {error}")
    return Findings(problems, notes)


def _bucket(aws: Aws, settings: Settings) -> Iterator[str]:
    bucket, region = settings.aws.bucket, aws.client("s3").meta.region_name
    with explained("GetBucketLocation"):
        try:
            answer = aws.client("s3").get_bucket_location(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchBucket":
                raise
            yield f"aws.bucket {bucket} does not exist: create it, or name another one"
            return
    # Names of the API's first years.
    found = answer.get("LocationConstraint") or "us-east-1"
    found = "eu-west-1" if found == "EU" else found
    if found != region:
        yield f"aws.bucket {bucket} is in {found}, and jobs run in {region}: use a bucket there"


def _quotas(aws: Aws, settings: Settings) -> Iterator[str]:
    job, endpoint, transform = settings.training, settings.endpoint, settings.transform
    kind = "spot training job" if job.spot else "training job"
    parallel = 1 if settings.tuning is None else settings.tuning.parallel
    needed = {f"{job.instance_type} for {kind} usage": ("training", job.instance_count * parallel)}
    if endpoint.kind != "serverless":
        name = f"{endpoint.instance_type} for endpoint usage"
        needed[name] = ("endpoint", endpoint.instance_count)
    if "transform" in settings.model_fields_set:
        name = f"{transform.instance_type} for transform job usage"
        needed[name] = ("transform", transform.instance_count)
    pages = aws.pages("ListServiceQuotas", {"ServiceCode": "sagemaker"}, "service-quotas")
    values = {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}
    for name, (section, count) in needed.items():
        value = values.get(name, count)
        if value < count:
            yield (
                f"the quota '{name}' is {value:g}, and [{section}] needs {count}: request a higher "
                "one in Service Quotas, or use another instance type"
            )


def _role(aws: Aws, settings: Settings) -> Iterator[str]:
    arn = settings.aws.role
    name = arn.rpartition("/")[2]
    role = aws.query("GetRole", {"RoleName": name}, "iam")["Role"]
    if "sagemaker.amazonaws.com" not in json.dumps(role["AssumeRolePolicyDocument"]):
        yield f"aws.role {name} does not trust sagemaker.amazonaws.com: see role-trust.json"
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
            yield f"aws.role {name} may not {action} on {request['ResourceArns'][0]}: see role.json"


def _container_images(aws: Aws, settings: Settings) -> Iterator[str]:
    images, endpoint = settings.images, settings.endpoint
    serve = ("serve_arm64", "arm64") if endpoint.is_arm64 else ("serve", "amd64")
    for key, architecture in (("train", "amd64"), serve):
        uri = getattr(images, key)
        if uri is not None and (problem := _problem(aws, uri, architecture)):
            yield f"images.{key} {uri} {problem}"


def _problem(aws: Aws, uri: str, architecture: str) -> str | None:
    match = _IMAGE.fullmatch(uri)
    if match is None:
        return "is not an address in ECR"
    chosen = {"imageDigest": match["digest"]} if match["digest"] else {}
    chosen = chosen or {"imageTag": match["tag"] or "latest"}
    where = {"registryId": match["account"], "repositoryName": match["repository"]}
    request = where | {"imageIds": [chosen], "acceptedMediaTypes": list(_MANIFESTS)}
    with explained("BatchGetImage"):
        try:
            found = aws.client("ecr").batch_get_image(**request)["images"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "RepositoryNotFoundException":
                raise
            found = []
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
        with urlopen(address, timeout=_CONFIG_SECONDS) as response:  # noqa: S310
            config = json.loads(response.read(_MAX_CONFIG_BYTES))
        built = str(config["architecture"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"the configuration of {uri} cannot be read: {error}") from None
    if built != architecture:
        return f"is for {built}, and the instances are {architecture}: build it for that platform"
    return None


def _data(aws: Aws, settings: Settings) -> Iterator[str]:
    total = 0
    for channel in settings.data.channels:
        prefix = S3Uri.parse(f"{settings.channels_uri}/{channel}/")
        sizes = [int(each["Size"]) for each in prefix.objects(aws)]
        total += sum(sizes)
        if not sizes:
            yield f"the channel {channel} has no objects at {prefix}: `image-classifier upload`"
    volume = settings.training.volume_gb
    if settings.data.mode == "File" and total > volume * 1e9:
        yield (
            f"the channels have {total / 1e9:.1f} GB, and training.volume_gb is {volume}: raise "
            'it, or set data.mode = "FastFile"'
        )
