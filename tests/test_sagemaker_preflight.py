"""`check --account`: each problem of an account has its sentence."""

import json
from pathlib import Path
from urllib.parse import quote

import boto3
import pytest

from container.training import recipe
from container.training.hyperparameters import Hyperparameters
from tests.accounts import ON_ACCOUNT, StandIn, client, put, run
from tests.settings_files import BEGINNING, TUNING, read, write

pytestmark = ON_ACCOUNT

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
SAGEMAKER = "sagemaker.amazonaws.com"
OCI = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """An account in which nothing is missing."""
    client("iam").create_role(RoleName="image-classifier", AssumeRolePolicyDocument=trust())
    for channel in ("training", "validation"):
        put(f"hands/data/{channel}/a/1.png", b"x" * 1000)
    stand_in = StandIn(monkeypatch)
    quotas(stand_in, 1)
    simulated(stand_in, "allowed")
    images(stand_in, DOCKER, "amd64")
    return stand_in


def trust(service: str = "sagemaker.amazonaws.com") -> str:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def quotas(stand_in: StandIn, value: float) -> None:
    names = ["training job", "spot training job", "transform job"]
    listed = [f"ml.g5.xlarge for {name} usage" for name in names] + [
        "ml.c7i.large for endpoint usage"
    ]
    found = [{"QuotaName": name, "Value": value} for name in listed]
    stand_in.answer("service-quotas.ListServiceQuotas", {"Quotas": found})


def simulated(stand_in: StandIn, decision: str) -> None:
    stand_in.answer(
        "iam.SimulatePrincipalPolicy",
        f"""<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">
        <SimulatePrincipalPolicyResult><EvaluationResults><member>
        <EvalActionName>a</EvalActionName><EvalDecision>{decision}</EvalDecision>
        </member></EvaluationResults></SimulatePrincipalPolicyResult>
        </SimulatePrincipalPolicyResponse>""".encode(),
    )


def images(stand_in: StandIn, media_type: str, architecture: str) -> None:
    manifest = json.dumps({"mediaType": media_type, "config": {"digest": f"sha256:{'a' * 64}"}})
    found = {"imageManifest": manifest, "imageManifestMediaType": media_type}
    stand_in.answer("ecr.BatchGetImage", {"images": [found]})
    address = f'data:application/json,{{"architecture":"{architecture}"}}'
    stand_in.answer("ecr.GetDownloadUrlForLayer", {"downloadUrl": address})


def test_account_without_problems(
    ready: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", write(tmp_path), "--account", "--quiet") == 0

    assert capsys.readouterr().err == ""
    assert len(ready.sent("SimulatePrincipalPolicy")) == 5


def test_every_problem_has_its_sentence(
    ready: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client("iam").update_assume_role_policy(
        RoleName="image-classifier", PolicyDocument=trust("ec2.amazonaws.com")
    )
    client("s3").delete_object(Bucket="my-bucket", Key="hands/data/validation/a/1.png")
    scaled = "[endpoint]\ninstance_count = 2\n[endpoint.scaling]\nmax_instances = 3\n"
    settings = write(tmp_path, f"[training]\ninstance_count = 2\n{scaled}")

    quotas(ready, 1)
    simulated(ready, "implicitDeny")
    images(ready, DOCKER, "arm64")

    assert run("check", settings, "--account") == 1

    err = capsys.readouterr().err
    for expected in (
        "the quota 'ml.g5.xlarge for training job usage' is 1, and [training] needs 2: request",
        "the quota 'ml.c7i.large for endpoint usage' is 1, and [endpoint] needs 3: request",
        "aws.role image-classifier does not trust sagemaker.amazonaws.com",
        "may not s3:PutObject on arn:aws:s3:::my-bucket/hands/output/model.tar.gz: see role.json",
        "image-classifier-train:abc is for arm64, and the instances are amd64: build it",
        "the channel validation has no objects at s3://my-bucket/hands/data/validation/",
    ):
        assert expected in err


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"images": []}, "image-classifier-train:abc does not exist: run push.sh"),
        ("RepositoryNotFoundException", "image-classifier-train:abc does not exist: run push.sh"),
        (
            {"images": [{"imageManifest": "{}", "imageManifestMediaType": OCI}]},
            f"has a manifest of type {OCI}, which SageMaker rejects: push it with push.sh",
        ),
    ],
)
def test_container_images_that_sagemaker_rejects(
    answer: dict[str, object] | str,
    expected: str,
    ready: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ready.answer("ecr.BatchGetImage", answer)

    assert run("check", write(tmp_path), "--account") == 1

    assert expected in capsys.readouterr().err


def test_bucket_of_another_region_and_full_volume(
    ready: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ready
    boto3.client("s3", region_name="us-west-2").create_bucket(
        Bucket="far", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    settings = write(tmp_path, "", BEGINNING.replace("my-bucket", "far"))
    sizes = iter([20_000_000_000, 20_000_000_000])
    monkeypatch.setattr(
        "image_classifier.sagemaker.s3.S3Uri.objects",
        lambda *_: [{"Key": "1.png", "Size": next(sizes)}],
    )

    assert run("check", settings, "--account") == 1

    err = capsys.readouterr().err
    assert "aws.bucket far is in us-west-2, and jobs run in eu-west-1: use a bucket there" in err
    assert (
        "a training job needs room for 40.0 GB in the channels and 0.0 GB for 2 images decoded at "
        "224 pixels, and training.volume_gb is 30: raise it, or set data.mode"
    ) in err


def test_decoded_copy_fills_the_volume_of_streamed_images(
    ready: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ready
    listed = [{"Key": f"a/{number}.PNG", "Size": 1} for number in range(4000)]
    listed += [{"Key": "labels.csv", "Size": 1}]
    monkeypatch.setattr("image_classifier.sagemaker.s3.S3Uri.objects", lambda *_: listed)
    rest = '[data]\nmode = "FastFile"\n[training]\nvolume_gb = 2\n[hyperparameters]\n'

    assert run("check", write(tmp_path, f"{rest}image_size = 128"), "--account") == 0
    assert run("check", write(tmp_path, f"{rest}image_size = 512"), "--account") == 1

    assert (
        "needs room for 6.3 GB for 8000 images decoded at 512 pixels, and training.volume_gb is 2: "
        "raise it, or use a smaller image_size"
    ) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("", 224),
        ('[hyperparameters]\nnetwork = "small"\n', 128),
        ('[hyperparameters]\nnetwork = "small"\nimage_size = "64"\n', 64),
        (f"{TUNING}image_size = {{ values = [64, 96] }}\n[hyperparameters]\nimage_size = 32\n", 96),
        (f"{TUNING}image_size = {{ min = 64, max = 160 }}\n", 160),
    ],
)
def test_size_of_decoded_images_is_that_of_the_training_program(
    rest: str, expected: int, tmp_path: Path
) -> None:
    settings = read(tmp_path, rest).settings

    assert settings.image_size == expected
    if settings.tuning is None:
        given = Hyperparameters.from_strings(settings.job_hyperparameters())
        assert recipe.image_size(given) == expected


DENY: dict[str, object] = {"Effect": "Deny", "Action": "sts:*"}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (DENY | {"Principal": "*"}, "denies sagemaker.amazonaws.com in its trust policy"),
        (DENY | {"Principal": {"Service": SAGEMAKER}}, "denies sagemaker.amazonaws.com in"),
        (DENY | {"NotPrincipal": {"Service": "ec2.amazonaws.com"}}, "denies sagemaker"),
        (DENY | {"Principal": {"Service": ["ec2.amazonaws.com"]}}, ""),
        (DENY | {"NotPrincipal": {"Service": [SAGEMAKER]}}, ""),
        (DENY | {"Principal": "*", "Action": ["sts:TagSession"]}, ""),
        (
            DENY | {"Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
            "not checked: the condition of a Deny for sagemaker.amazonaws.com in the trust policy",
        ),
    ],
)
def test_deny_in_the_trust_policy_is_noticed(
    statement: dict[str, object],
    expected: str,
    ready: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = json.loads(trust())
    document["Statement"].append(statement)
    # moto does not accept every valid policy.
    ready.answer(
        "iam.GetRole",
        f"""<GetRoleResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetRoleResult><Role>
        <AssumeRolePolicyDocument>{quote(json.dumps(document))}</AssumeRolePolicyDocument>
        </Role></GetRoleResult></GetRoleResponse>""".encode(),
    )

    assert run("check", write(tmp_path), "--account", "--quiet") == int("denies" in expected)

    err = capsys.readouterr().err
    assert expected in err
    assert bool(expected) == bool(err)


def test_quota_that_is_not_listed_is_unknown(
    ready: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ready
    settings = write(tmp_path, '[training]\ninstance_type = "ml.g6.xlarge"\n')

    assert run("check", settings, "--account") == 0

    assert (
        "not checked: the quota 'ml.g6.xlarge for training job usage' ([training] needs 1): "
        "Service Quotas does not list it\n"
    ) in capsys.readouterr().err


def test_what_the_user_may_not_read_is_named(
    ready: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready.answer("service-quotas.ListServiceQuotas", "AccessDeniedException")

    assert run("check", write(tmp_path), "--account") == 0

    assert "not checked: quotas: AWS rejected ListServiceQuotas" in capsys.readouterr().err
