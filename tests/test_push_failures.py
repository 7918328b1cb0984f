"""push.sh stops at the first call that fails, with its reason: stand-ins replace every program."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.containers import REPOSITORY

REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

# Appends its call to a file. The call of the number FAIL_AT fails with the text REASON. Without a
# login, queries of the registry fail with the text ACCESS, and before a build with "not found".
STAND_IN = """#!/bin/sh
call="${0##*/} $*"
echo "$call" >>"$CALLS"
[ "$(wc -l <"$CALLS")" -ne "$FAIL_AT" ] || { [ -z "$REASON" ] || printf "$REASON" >&2; exit 7; }
case $call in
*"configure get region") echo eu-west-1 ;;
*rev-parse*) echo 0123456789abcdef0123456789abcdef01234567 ;;
*describe-repositories*)
    echo 'An error occurred (RepositoryNotFoundException): no such repository' >&2; exit 254 ;;
*create-repository*) echo "$REGISTRY/image-classifier-serve" ;;
*get-login-password*) echo password ;;
*imagetools*)
    grep -q 'docker login' "$CALLS" || { echo "ERROR: $ACCESS" >&2; exit 1; }
    grep -q 'buildx build' "$CALLS" || { echo "ERROR: $4: not found" >&2; exit 1; }
    echo "sha256:1 application/vnd.docker.distribution.manifest.v2+json" ;;
*login*) [ "$(cat)" = password ] ;;
esac
"""

CALLS = (
    "docker buildx version",
    "aws configure get region",
    "git status",
    "git rev-parse",
    "aws ecr describe-repositories",
    "aws ecr create-repository",
    "aws ecr put-lifecycle-policy",
    "docker buildx imagetools",
    "aws ecr get-login-password",
    "docker login",
    "docker buildx imagetools",
    "docker buildx build",
    "docker buildx imagetools",
)

NO_ACCESS = "no basic auth credentials"


def push(
    folder: Path, *arguments: str, fail_at: int = 0, reason: str = "", access: str = NO_ACCESS
) -> tuple[subprocess.CompletedProcess[str], Sequence[str]]:
    """Run push.sh; return its result and the calls that it made."""
    (stand_ins := folder / "bin").mkdir()
    for program in ("aws", "docker", "git"):
        (stand_ins / program).write_text(STAND_IN)
        (stand_ins / program).chmod(0o755)
    shutil.copy(REPOSITORY / "push.sh", folder)
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "ECR_"))
    }
    result = subprocess.run(
        ["./push.sh", *arguments, "serve"],
        cwd=folder,
        env={
            **environment,
            "PATH": f"{stand_ins}:{environment['PATH']}",
            "CALLS": str(folder / "calls"),
            "FAIL_AT": str(fail_at),
            "REASON": reason,
            "REGISTRY": REGISTRY,
            "ACCESS": access,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return result, (folder / "calls").read_text().splitlines()


def test_all_calls_of_a_push(tmp_path: Path) -> None:
    result, calls = push(tmp_path)

    assert result.returncode == 0, result.stderr
    assert len(calls) == len(CALLS)
    for call, expected in zip(calls, CALLS, strict=True):
        assert call.startswith(expected)
    assert result.stdout == f"serve {REGISTRY}/image-classifier-serve@sha256:1\n"
    assert "password" not in " ".join(calls).replace("-password", "")


@pytest.mark.parametrize("reason", ["first line\\nERROR: the reason\\n\\n", ""])
@pytest.mark.parametrize(("number", "call"), list(enumerate(CALLS, 1)))
def test_a_failed_call_ends_the_push_with_its_reason(
    number: int, call: str, reason: str, tmp_path: Path
) -> None:
    result, calls = push(tmp_path, fail_at=number, reason=reason)

    assert result.returncode == 1
    assert len(calls) == number
    assert calls[-1].startswith(call)
    last = result.stderr.splitlines()[-1]
    assert ("ERROR: the reason" if reason else "exit status 7") in last
    assert not (tmp_path / "images.json").exists()


def test_existing_credentials_are_used_instead_of_a_login(tmp_path: Path) -> None:
    result, calls = push(tmp_path, access="image: not found")

    assert not any("login" in call for call in calls)
    assert any(call.startswith("docker buildx build") for call in calls)
    # The stand-in reports a pushed image only after a login.
    assert "is not in the registry after its push" in result.stderr.splitlines()[-1]


def test_a_missing_credential_helper_is_not_a_missing_image(tmp_path: Path) -> None:
    message = (
        'error getting credentials - err: exec: "docker-credential-ecr-login": '
        "executable file not found in $PATH"
    )

    result, calls = push(tmp_path, fail_at=10, reason="cannot save", access=message)

    assert not any(call.startswith("docker buildx build") for call in calls)
    assert message in result.stderr
    assert result.stderr.splitlines()[-1] == f"push.sh: docker login {REGISTRY} failed: cannot save"


def test_container_images_for_arm64_have_another_tag_and_file(tmp_path: Path) -> None:
    result, calls = push(tmp_path, "--platform", "linux/arm64")

    assert result.returncode == 0, result.stderr
    (build,) = (call for call in calls if call.startswith("docker buildx build"))
    assert "--platform linux/arm64" in build
    assert "image-classifier-serve:0123456789ab-arm64," in build
    assert (tmp_path / "images-arm64.json").is_file()
    assert not (tmp_path / "images.json").exists()


def test_other_platforms_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "calls").touch()

    result, calls = push(tmp_path, "--platform", "linux/riscv64")

    assert result.returncode == 1
    assert not calls
    assert "--platform linux/riscv64" in result.stderr
