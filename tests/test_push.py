"""push.sh pushes both container images to a real registry; moto replaces AWS."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.containers import REPOSITORY, docker
from tests.processes import free_port

SCHEMA_2 = "application/vnd.docker.distribution.manifest.v2+json"
REGION = "eu-west-1"
NEEDED = ("aws", "docker-registry")

# push.sh requires Docker with buildx, in a dry run too.
pytestmark = pytest.mark.docker

needs_programs = pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)),
    reason=f"needs {' and '.join(NEEDED)}: .ci/run installs them",
)


@dataclass(frozen=True, slots=True)
class Aws:
    """Replacements of AWS: its APIs and a registry."""

    api: str
    registry: str

    def variables(self) -> Mapping[str, str]:
        """Return the environment variables with which push.sh uses both."""
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": self.api,
            "ECR_REGISTRY": self.registry,
        }

    def get(self, path: str, accept: str = SCHEMA_2) -> Any:  # noqa: ANN401 - JSON
        request = urllib.request.Request(
            f"http://{self.registry}/v2/{path}", headers={"Accept": accept}
        )
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read()) | {"digest": answer.headers["Docker-Content-Digest"]}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    folder = tmp_path_factory.mktemp("aws")
    api, registry = f"http://localhost:{(port := free_port())}", f"localhost:{free_port()}"
    settings = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
        "http": {"addr": registry},
    }
    # JSON is YAML.
    (folder / "registry.yml").write_text(json.dumps(settings))
    commands = (
        ["docker-registry", "serve", str(folder / "registry.yml")],
        [sys.executable, "-m", "moto.server", "-p", str(port)],
    )
    with (folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            for command in commands
        ]
        try:
            while not (answers(api) and answers(f"http://{registry}/v2/")):
                assert all(process.poll() is None for process in processes)
                time.sleep(0.1)
            yield Aws(api, registry)
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            shutil.rmtree(folder / "registry", ignore_errors=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone: push.sh uses the commit as tag, and writes images.json."""
    command = ["git", "clone", "-q", str(REPOSITORY), str(tmp_path / "clone")]
    subprocess.run(command, check=True)
    # Test uncommitted changes too.
    shutil.copy(REPOSITORY / "push.sh", tmp_path / "clone")
    return tmp_path / "clone"


def push(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AWS_REGION": REGION, **variables}
    return subprocess.run(
        ["./push.sh", *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


# What the Dockerfile itself imports.
MATPLOTLIB = {
    *("contourpy", "cycler", "fonttools", "kiwisolver", "matplotlib", "numpy"),
    *("packaging", "pillow", "pyparsing", "python-dateutil", "six"),
}


def without_torch(checkout: Path) -> None:
    """Leave PyTorch and CUDA out of the training image: packing their 6 GB takes minutes."""
    lock = checkout / "requirements" / "train.txt"
    requirements = re.split(r"^(?=\S)", lock.read_text("utf-8"), flags=re.MULTILINE)
    small = [one for one in requirements if one.split("==")[0] in MATPLOTLIB]
    assert len(small) == len(MATPLOTLIB)
    lock.write_text("".join(small), "utf-8")
    author = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    command = ["git", *author, "commit", "--quiet", "--all", "--message", "Leave PyTorch out"]
    subprocess.run(command, cwd=checkout, check=True)


@pytest.mark.slow
@needs_programs
@pytest.mark.timeout(1800)
def test_both_container_images_are_pushed_once_in_sagemakers_format(
    aws: Aws, checkout: Path
) -> None:
    without_torch(checkout)

    first = push(checkout, **aws.variables())
    assert first.returncode == 0, first.stderr
    pushed = json.loads((checkout / "images.json").read_text())
    second = push(checkout, **aws.variables())

    assert second.returncode == 0, second.stderr
    assert "buildx build" in first.stderr
    assert "buildx build" not in second.stderr
    assert json.loads((checkout / "images.json").read_text()) == pushed
    assert pushed["region"] == REGION
    for image in ("train", "serve"):
        name = f"image-classifier-{image}"
        manifest = aws.get(f"{name}/manifests/{pushed['tag']}")
        assert pushed[image] == f"{aws.registry}/{name}@{manifest['digest']}"
        assert manifest["mediaType"] == SCHEMA_2
        config = aws.get(f"{name}/blobs/{manifest['config']['digest']}")
        assert (config["architecture"], config["os"]) == ("amd64", "linux")
        assert config["config"]["Entrypoint"][:2] == ["python", "-m"]
        docker("rmi", f"{aws.registry}/{name}:{pushed['tag']}", check=False)


@needs_programs
def test_missing_repositories_are_created_with_immutable_tags(aws: Aws, checkout: Path) -> None:
    """The push itself fails: the address has no registry."""
    result = push(
        checkout,
        "--prefix",
        "team/images",
        "serve",
        **{**aws.variables(), "ECR_REGISTRY": "localhost:1"},
    )

    assert result.returncode != 0
    ecr = boto3.client(
        "ecr",
        region_name=REGION,
        endpoint_url=aws.api,
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106 - moto accepts any
    )
    (repository,) = ecr.describe_repositories(repositoryNames=["team/images-serve"])["repositories"]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
    policy = ecr.get_lifecycle_policy(repositoryName="team/images-serve")
    (rule,) = json.loads(policy["lifecyclePolicyText"])["rules"]
    assert rule["selection"]["tagStatus"] == "untagged"


@needs_programs
def test_dry_run_prints_all_commands_and_runs_none(checkout: Path) -> None:
    nowhere = {"AWS_ENDPOINT_URL": "http://localhost:1", "AWS_ACCESS_KEY_ID": "key"}

    result = push(checkout, "--dry-run", **nowhere)

    assert result.returncode == 0, result.stderr
    calls = [line for line in result.stderr.splitlines() if line.startswith("+ ")]
    for call in (
        "aws ecr describe-repositories",
        "aws ecr create-repository",
        "aws ecr put-lifecycle-policy",
        "aws ecr get-login-password",
        "docker login",
        "docker buildx imagetools inspect",
        "docker buildx build --platform linux/amd64 --provenance=false --sbom=false",
    ):
        assert any(line.startswith(f"+ {call}") for line in calls), call
    assert not (checkout / "images.json").exists()


@needs_programs
def test_serving_container_image_for_gpus_has_another_tag(checkout: Path) -> None:
    result = push(checkout, "--dry-run", "--gpu")

    assert result.returncode == 0, result.stderr
    train, serve = (
        line for line in result.stderr.splitlines() if line.startswith("+ docker buildx build")
    )
    assert "DEVICE" not in train
    assert "-gpu" not in train
    assert "--build-arg DEVICE=gpu" in serve
    assert re.search(r"image-classifier-serve:[0-9a-f]{12}-gpu\b", serve)


@needs_programs
@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["--tag"], {}, "unknown argument --tag"),
        (["--region"], {}, "--region needs a value"),
        (["--prefix", "Team"], {}, "--prefix Team: ECR accepts lower case letters"),
        ([], {"AWS_ENDPOINT_URL": "http://localhost:1"}, "ECR did not return the repository"),
    ],
)
def test_mistakes_are_reported_before_the_build(
    arguments: list[str], variables: dict[str, str], message: str, checkout: Path
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}

    result = push(checkout, *arguments, **keys, **variables)

    assert result.returncode == 1
    assert message in result.stderr
    assert "docker buildx build" not in result.stderr


@needs_programs
def test_uncommitted_changes_are_rejected(checkout: Path) -> None:
    (checkout / "container/serving/http/app.py").write_text("changed")

    result = push(checkout, "--dry-run")

    assert result.returncode == 1
    assert "commit first" in result.stderr
