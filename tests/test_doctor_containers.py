"""The doctor examines container images."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_classifier.cli import main
from image_classifier.platform.doctor.cases import MULTI_MODEL, SERVE, TRAIN, TRANSFORM
from image_classifier.platform.doctor.diagnosis import diagnose
from image_classifier.platform.doctor.examination import Options, TimeLimits
from tests.bodies import PNG
from tests.containers import docker
from tests.zoo import servers, trainings

pytestmark = pytest.mark.docker

BASE = "python:3.11-slim-bookworm"
PROGRAM = f"FROM {BASE}\nCOPY --chmod=755 serve.py /program/serve.py\n"

LIMITS = TimeLimits(startup=10, invocation=4, serving_grace=2, watch=0, growth=0.2)

COSTLY = ("image-secrets", "payload-size", "concurrency", "memory", "keep-alive")

HEALTHY = 'ENTRYPOINT ["python", "/program/serve.py", "Healthy"]'

# Lines of the Dockerfile after PROGRAM, and the cases that fail.
IMAGES = {
    "healthy": (HEALTHY, []),
    "shell form": (
        "ENTRYPOINT python /program/serve.py Healthy; exit 1",
        ["image-entrypoint", "sigterm"],
    ),
    "no entry point": ("CMD python", ["image-entrypoint"]),
    "lost mode": (
        'RUN chmod 644 /program/serve.py\nENTRYPOINT ["/program/serve.py"]',
        ["image-entrypoint"],
    ),
    "no first line": ('ENTRYPOINT ["/program/serve.py", "Healthy"]', ["image-entrypoint"]),
    "secret": (
        f"ENV API_TOKEN=2e5f0c8a91\n{HEALTHY}",
        ["image-secrets"],
    ),
    "deleted secret": (
        f"RUN mkdir /root/.aws && echo x > /root/.aws/credentials\nRUN rm -r /root/.aws\n{HEALTHY}",
        ["image-secrets"],
    ),
    "only root": (
        f"RUN chmod 700 /program\nUSER 1000\n{HEALTHY}",
        ["start"],
    ),
    "downloads": ('ENTRYPOINT ["python", "/program/serve.py", "downloads"]', ["network"]),
    "compiles model": (
        'ENTRYPOINT ["python", "/program/serve.py", "compiles_model"]',
        ["read-only-model"],
    ),
    "writes outside": (
        'ENTRYPOINT ["python", "/program/serve.py", "WritesOutside"]',
        ["writes-outside"],
    ),
    "memory": ('ENTRYPOINT ["python", "/program/serve.py", "grows_at_start"]', ["memory"]),
    "local only": ('ENTRYPOINT ["python", "/program/serve.py", "LocalOnly"]', ["port"]),
}


@pytest.fixture(scope="module")
def images() -> Iterator[list[str]]:
    names: list[str] = []
    yield names
    docker("image", "rm", "--force", *names)


def build(name: str, lines: str, program: str = servers.__file__) -> None:
    """Build a container image with a program of the zoo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        content_of_program = Path(program).read_bytes()
        for path, content in {
            "serve.py": content_of_program,
            "Dockerfile": (PROGRAM + lines).encode(),
        }.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", name, "-"],  # noqa: S607 - on the PATH
        input=buffer.getvalue(),
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("name", IMAGES)
def test_container_image_fails_the_cases_of_its_faults(name: str, images: list[str]) -> None:
    lines, case_ids = IMAGES[name]
    image = f"doctor-zoo-{name.replace(' ', '-')}"
    images.append(image)
    build(image, lines)

    # The others take seconds.
    ignored = {*COSTLY} - {*case_ids} if case_ids else []

    report = diagnose(
        image,
        [],
        SERVE,
        options=Options(memory=200 * 2**20),
        limits=LIMITS,
        ignored=[*ignored],
    )

    assert [*report.failed] == case_ids, report.text()
    assert docker("network", "ls", "--quiet", "--filter", "name=image-classifier-doctor").text == ""


def test_healthy_training_in_a_container(images: list[str]) -> None:
    images.append("doctor-zoo-training")
    build("doctor-zoo-training", HEALTHY, trainings.__file__)
    ignored = ["image-secrets", "hyperparameter-strings"]

    report = diagnose("doctor-zoo-training", [], TRAIN, ignored=ignored)

    assert report.failed == {}, report.text()
    assert {*report.skipped} == {*ignored}


@pytest.mark.parametrize("role", [SERVE, MULTI_MODEL, TRANSFORM])
def test_our_serving_container_image_passes_all_cases(
    role: str, serve_image: str, artifact: Path
) -> None:
    options = Options(model=artifact, request=PNG, content_type="image/png")
    # Read in one of the roles.
    ignored = [] if role == SERVE else ["image-secrets"]

    limits = TimeLimits(watch=1, growth=4)

    report = diagnose(serve_image, [], role, options=options, limits=limits, ignored=ignored)

    assert (report.failed, [*report.skipped]) == ({}, ignored), report.text()


@pytest.mark.slow
def test_our_training_container_image_passes_all_cases(train_image: str) -> None:
    hyperparameters = {"network": "small", "image_size": "16", "epochs": "2"}
    hyperparameters |= {"quantize": "none", "debug": "off"}
    # The engine takes a minute to write the layers, which have gigabytes.
    ignored = ["image-secrets", "hyperparameter-strings"]

    report = diagnose(
        train_image, [], TRAIN, options=Options(hyperparameters=hyperparameters), ignored=ignored
    )

    assert (report.failed, [*report.skipped]) == ({}, ignored), report.text()


def test_command_takes_a_packed_model_and_a_request(
    images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images.append("doctor-zoo-model")
    build("doctor-zoo-model", 'ENTRYPOINT ["python", "/program/serve.py", "PingWithoutModel"]')
    request, model = tmp_path / "request.json", tmp_path / "model.tar.gz"
    request.write_text('{"instances": [[1, 2]]}')
    (tmp_path / "weights.txt").write_text("1")
    with tarfile.open(model, "w:gz") as archive:
        archive.add(tmp_path / "weights.txt", "weights.txt")
    inputs = ("--model", str(model), "--request", str(request))

    with pytest.raises(SystemExit) as end:
        main(["doctor", "doctor-zoo-model", *inputs, "--json", "--watch", "0", "--skip", *COSTLY])

    assert end.value.code == 1
    (failure,) = json.loads(capsys.readouterr().out)["failed"]
    assert failure["id"] == "ping-before-ready"
    assert failure["message"] == "/ping returns 200 without a model, and predictions fail"
