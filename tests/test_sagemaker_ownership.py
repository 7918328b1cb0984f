"""Two users of one account with the same settings: neither sees or deletes the other's things."""

import io
from pathlib import Path

import boto3
import pytest

from image_classifier.sagemaker import request_fields
from tests.accounts import ENDPOINT, ON_ACCOUNT, backend, client, keys, put, run
from tests.settings_files import write

pytestmark = ON_ACCOUNT


class Users:
    """Users of IAM, one of whom runs the command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Create anna and ben."""
        self._monkeypatch = monkeypatch
        iam = client("iam")
        self._keys = {}
        for name in ("anna", "ben"):
            iam.create_user(UserName=name, Path="/team/")
            self._keys[name] = iam.create_access_key(UserName=name)["AccessKey"]

    def become(self, name: str) -> None:
        """Set the credentials of a user."""
        key = self._keys[name]
        self._monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        self._monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        # The default session keeps the credentials of its first use.
        self._monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> Users:
    return Users(monkeypatch)


def test_users_with_the_same_settings_own_only_what_they_created(
    users: Users, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, ENDPOINT)
    users.become("anna")
    assert run("train", settings) == 0
    job = capsys.readouterr().out.splitlines()[-1]
    put(f"hands/output/{job}/output/model.tar.gz")
    put("hands/output/captured/requests.jsonl")
    assert run("deploy", settings) == 0
    before, objects = resources(), keys()
    capsys.readouterr()

    users.become("ben")
    assert run("status", settings) == 0
    assert capsys.readouterr().out == "hands has no resources of yours on SageMaker\n"
    assert run("delete", settings, "--yes") == 0
    assert capsys.readouterr().out == (
        "not yours, and kept: resources of the same name: 3 of user/anna\n"
        "hands has nothing of yours to delete\n"
    )
    assert run("deploy", settings) == 1
    assert "the endpoint hands belongs to user/anna, and you are user/ben" in error(capsys)
    assert run("logs", settings) == 1
    assert "hands has no training job of yours" in error(capsys)
    assert run("report", settings) == 1
    assert "hands has no completed training job of yours" in error(capsys)
    assert (resources(), keys()) == (before, objects)

    users.become("anna")
    assert run("delete", settings, "--yes") == 0
    assert "kept" not in capsys.readouterr().out
    assert resources() == {job}
    assert keys() == set()


def test_delete_removes_only_the_folders_of_own_jobs(
    users: Users, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = write(tmp_path, ENDPOINT)
    folders = {}
    for number, name in enumerate(("anna", "ben")):
        users.become(name)
        monkeypatch.setattr("time.strftime", lambda *_, number=number: f"25010{number}-000000")
        assert run("train", settings) == 0
        folders[name] = f"hands/output/hands-25010{number}-000000/output/model.tar.gz"
        put(folders[name])
    put("hands/output/models/shared.tar.gz")

    assert run("delete", settings, "--yes") == 0

    assert keys() == {folders["anna"], "hands/output/models/shared.tar.gz"}


def test_resources_without_a_creator_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, ENDPOINT)
    assert run("deploy", settings, "--job", "s3://my-bucket/a/model.tar.gz") == 0
    backend().endpoints["hands"].tags = [{"Key": "image-classifier", "Value": "hands"}]
    capsys.readouterr()

    assert run("delete", settings, "--yes") == 0

    kept = "resources of the same name: 1 without the tag image-classifier-creator"
    assert kept in capsys.readouterr().out
    assert "hands" in resources()


@pytest.mark.parametrize(("typed", "code"), [("hands\n", 0), ("y\n", 1), ("", 1)])
def test_delete_requires_the_name(
    typed: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = write(tmp_path, ENDPOINT)
    assert run("deploy", settings, "--job", "s3://my-bucket/a/model.tar.gz") == 0
    terminal = io.StringIO(typed)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)

    assert run("delete", settings) == code

    assert ("hands" in resources()) == bool(code)
    printed = capsys.readouterr()
    assert "type hands to delete all of these: " in printed.out
    assert ("nothing was deleted" in printed.err) == bool(code)


def test_models_of_a_multi_model_endpoint_never_share_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = [
        "s3://my-bucket/model.tar.gz",
        "s3://my-bucket/a/job/output/model.tar.gz",
        "s3://my-bucket/b/job/output/model.tar.gz",
        "s3://my-bucket/b/job/other.tar.gz",
    ]
    for address in addresses:
        put(address.removeprefix("s3://my-bucket/"))
    listed = ", ".join(f'"{address}"' for address in addresses)
    settings = write(tmp_path, f'{ENDPOINT}kind = "multi-model"\nmodels = [{listed}]\n')

    assert run("deploy", settings) == 0

    copies = {key.rpartition("/")[2] for key in keys() if key.startswith("hands/output/models/")}
    assert len(copies) == len(addresses)
    assert sum(name.startswith("job-") for name in copies) == 3
    client("sagemaker").delete_endpoint(EndpointName="hands")
    # A model that was written anew has another name: SageMaker caches models by name.
    put("model.tar.gz", b"new")
    assert run("deploy", settings) == 0
    after = {key for key in keys() if key.startswith("hands/output/models/")}
    assert len(after) == len(addresses) + 1
    missing = write(tmp_path, f'{ENDPOINT}kind = "multi-model"\n')
    client("sagemaker").delete_endpoint(EndpointName="hands")
    capsys.readouterr()
    assert run("deploy", missing, "--job", "s3://my-bucket/missing/model.tar.gz") == 1
    assert "s3://my-bucket/missing/model.tar.gz" in error(capsys)


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        ("arn:aws:iam::111122223333:root", "root"),
        ("arn:aws:iam::111122223333:user/team/anna", "user/anna"),
        ("arn:aws:iam::111122223333:user/a,b=c", "user/a=2Cb=3Dc"),
        ("arn:aws:sts::1:assumed-role/dev/anna@x.org", "assumed-role/dev/anna@x.org"),
        ("arn:aws:sts::1:assumed-role/dev/botocore-session-1732871234", "assumed-role/dev"),
        ("arn:aws-cn:sts::1:assumed-role/dev/i-0ab12cd34ef567890", "assumed-role/dev"),
    ],
)
def test_creator_is_the_same_at_the_next_login(arn: str, expected: str) -> None:
    assert request_fields.creator(arn) == expected


def resources() -> set[str]:
    """Return the names of all jobs, models, endpoints and their configurations."""
    moto = backend()
    kinds = (moto.training_jobs, moto.endpoints, moto.endpoint_configs, moto._models)
    return {name for kind in kinds for name in kind}


def error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err
