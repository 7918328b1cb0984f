"""`transform --local`: folder to folder, with the requests of SageMaker's batch transform."""

import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from container.classifier.errors import UserError
from image_classifier.cli import main
from image_classifier.platform import batch, endpoint
from image_classifier.platform.sandbox.launch import Launch, Running
from image_classifier.platform.sandbox.process_target import ProcessTarget
from tests.bodies import PNG, lines
from tests.processes import free_port
from tests.zoo import servers

JSON_JOB = batch.Job(
    content_type="application/json",
    accept="application/json",
    strategy=batch.SINGLE,
    max_payload=1000,
    model="1",
)
LINES_JOB = replace(
    JSON_JOB,
    content_type="application/jsonlines",
    accept="application/jsonlines",
    strategy=batch.MULTI,
    max_payload=len(lines(PNG, PNG)) + 1,
)

VALID, INVALID = '{"instances": [[1, 2]]}', '{"instances": []}'


def launch(base_dir: Path, **variables: str) -> Launch:
    port = free_port()
    variables = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_BIND_TO_PORT": str(port), **variables}
    return Launch(base_dir=base_dir, folders={}, variables=variables, port=port)


def zoo(name: str) -> ProcessTarget:
    return ProcessTarget([sys.executable, servers.__file__, name])


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with endpoint.running(zoo("Healthy"), launch(tmp_path_factory.mktemp("ml")), 20) as server:
        yield server


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_folder_of_images_is_classified_by_the_trained_model(
    tmp_path: Path,
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with tarfile.open("model.tar.gz", "w:gz") as archive:
        archive.add(artifact, ".")
    environment = 'endpoint.environment = { SAGEMAKER_CLASSIFIER_IMAGE_MB = "10" }'
    Path("settings.toml").write_text(f'name = "batch"\n{environment}\n')
    images = tmp_path / "images"
    (images / "north/Ünder").mkdir(parents=True)
    for name in ("a.png", "north/b.png", "north/Ünder/c d.png", ".hidden.png"):
        (images / name).write_bytes(PNG)
    (images / "broken.png").write_bytes(PNG[:40])
    Image.new("RGB", (2000, 2000)).save(images / "large.png")
    command = ["transform", "settings.toml", "images", "--local", "--job", "model.tar.gz"]

    assert main(command) == 0

    out = tmp_path / ".launcher/batch/transform"
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "3 files classified, 2 with errors in their results, such as broken.png.out",
        ".launcher/batch/transform",
    ]
    assert files_in(out) == {
        "a.png.out",
        "broken.png.out",
        "large.png.out",
        "north/b.png.out",
        "north/Ünder/c d.png.out",
        ".transform.jsonl",
    }
    answer = json.loads((out / "north/b.png.out").read_text())
    assert answer["predictions"][0]["class_name"] in answer["class_names"]
    for name in ("broken", "large"):
        (rejected,) = json.loads((out / f"{name}.png.out").read_text())["predictions"]
        assert rejected["error"]["code"]
    (out / "a.png.out").unlink()
    assert main(command) == 0
    line = "1 file classified, 2 results of an earlier run kept, 2 with errors in their results, "
    assert f"{line}such as broken.png.out\n" in capsys.readouterr().out


def test_interrupted_job_continues_with_the_files_that_have_no_result(
    tmp_path: Path,
    healthy: Running,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write(source, {"a": VALID, "north/b": INVALID, "north/c": VALID, "large": " " * 1001})

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    first = batch.run(JSON_JOB, source, out, healthy)

    assert (first.done, first.kept) == (2, 0)
    assert "4/4 [" in capsys.readouterr().err
    assert "status 400" in first.failed["north/b"]
    assert first.failed["large"].startswith("the file has more than")
    assert files_in(out) == {
        "a.out",
        "north/c.out",
        "north/b.error",
        "large.error",
        ".transform.jsonl",
    }
    # As a process that was killed leaves it.
    with (out / batch.JOURNAL).open("a") as journal:
        journal.write('["north/b", 1')
    write(source, {"a": VALID.replace("2", "5"), "north/b": VALID, "large": VALID})
    second = batch.run(JSON_JOB, source, out, healthy, is_quiet=True)
    assert capsys.readouterr().err == ""
    assert (second.done, second.kept, second.failed) == (3, 1, {})
    assert json.loads((out / "a.out").read_text()) == {"sum": 6}
    assert not [name for name in files_in(out) if name.endswith(batch.ERROR)]
    (out / "a.out").unlink()
    assert batch.run(JSON_JOB, source, out, healthy).done == 1
    assert batch.run(replace(JSON_JOB, model="2"), source, out, healthy).done == 4


def test_lines_are_sent_in_requests_of_the_payload(tmp_path: Path, artifact: Path) -> None:
    base_dir, source, out = tmp_path / "ml", tmp_path / "in", tmp_path / "out"
    base_dir.mkdir()
    (base_dir / "model").symlink_to(artifact)
    source.mkdir()
    (source / "five.jsonl").write_bytes(lines(PNG, PNG, PNG, PNG[:40], PNG).rstrip(b"\n"))
    (source / "spaced.jsonl").write_bytes(b"\n" + lines(PNG) + b"\n\n" + lines(PNG))
    (source / "long.jsonl").write_bytes(lines(PNG) + b" " * 2 * len(lines(PNG)) + lines(PNG))
    (source / "empty.jsonl").touch()
    server = ProcessTarget([sys.executable, "-m", "container.serving", "serve"])
    variables = {"SAGEMAKER_CLASSIFIER_ERROR_RECORDS": "true"}

    with endpoint.running(server, launch(base_dir, **variables), 60) as running:
        summary = batch.run(LINES_JOB, source, out, running)

    assert [*summary.failed] == ["long.jsonl"]
    assert summary.failed["long.jsonl"].startswith("a line has more than")
    results = [json.loads(line) for line in (out / "five.jsonl.out").read_text().splitlines()]
    assert ["error" in result for result in results] == [False, False, False, True, False]
    assert (out / "spaced.jsonl.out").read_bytes().count(b"\n") == 2
    assert (out / "empty.jsonl.out").read_bytes() == b""


def test_response_without_a_line_for_each_line_is_a_failure(
    tmp_path: Path, healthy: Running
) -> None:
    source = write(tmp_path / "in", {"a": "\n".join([VALID.replace(" ", "")] * 2)})
    job = replace(JSON_JOB, strategy=batch.MULTI)

    summary = batch.run(job, source, tmp_path / "out", healthy)

    assert "status 400" in summary.failed["a"]


def test_end_of_the_server_ends_the_job(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a": VALID, "b": INVALID, "c": VALID})
    with (
        pytest.raises(UserError, match="the server ended with exit code"),
        endpoint.running(zoo("DiesOfInvalid"), launch(tmp_path), 20) as server,
    ):
        batch.run(JSON_JOB, source, tmp_path / "out", server)

    assert "a.out" in files_in(tmp_path / "out")


def test_name_that_is_too_long_for_a_result_fails_alone(tmp_path: Path, healthy: Running) -> None:
    source = write(tmp_path / "in", {"a": VALID, "ü" * 125: VALID})

    summary = batch.run(JSON_JOB, source, tmp_path / "out", healthy)

    assert summary.done == 1
    assert [*summary.failed.values()] == ["the name is too long for a file NAME.out"]


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path, healthy: Running) -> None:
    source = write(tmp_path / "in", {"a": VALID})
    write(tmp_path / "elsewhere", {"b": VALID})
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (source / "circle").symlink_to(source)
    (source / "gone").symlink_to(tmp_path / "missing")

    summary = batch.run(JSON_JOB, source, tmp_path / "out", healthy)

    assert summary.failed == {"gone": "cannot be read: No such file or directory"}
    assert {"a.out", "linked/b.out", "gone.error"} <= files_in(tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [("empty", "out", "no files in"), ("in", "in/out", "choose a folder outside")],
)
def test_folders_that_cannot_be_used(
    source: str, target: str, message: str, tmp_path: Path, healthy: Running
) -> None:
    write(tmp_path / "in", {"a": VALID})
    (tmp_path / "empty").mkdir()

    with pytest.raises(UserError, match=message):
        batch.run(JSON_JOB, tmp_path / source, tmp_path / target, healthy)


def test_server_that_is_never_ready_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="the server was not ready after 1 s"),
        endpoint.running(zoo("PingFails"), launch(tmp_path), 1),
    ):
        pass
    with (
        pytest.raises(UserError, match="the server ended with exit code 1: ModuleNotFoundError"),
        endpoint.running(zoo("import_error"), launch(tmp_path), 20),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "--local"], "no folder missing"),
        ([".", "--local"], "`train --local` first"),
        ([".", "--output", "x"], "--output needs --local"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = 'endpoint.environment = { SAGEMAKER_CLASSIFIER_IMAGE_MB = "10" }'
    Path("settings.toml").write_text(f'name = "batch"\n{environment}\n')
    try:
        code = main(["transform", "settings.toml", *arguments])
    except SystemExit as end:
        code = int(str(end.code))

    assert code == (2 if "--output" in arguments else 1)
    assert message in capsys.readouterr().err
    assert files_in(tmp_path) == {"settings.toml"}
