"""The platform of a multi-model endpoint: models are loaded and evicted on request."""

import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from image_classifier.cli.program import main
from image_classifier.local.packing import pack as pack_model
from image_classifier.platform import endpoint, multi_model_endpoint, processes, router
from image_classifier.platform.multi_model_endpoint import MultiModelEndpoint, launch_of
from image_classifier.platform.sandbox.http_call import Response, call
from image_classifier.platform.sandbox.launch import Launch, Running
from image_classifier.platform.sandbox.process_target import ProcessTarget
from tests.bodies import PNG
from tests.processes import children, free_port
from tests.zoo import servers

BODY = b'{"instances": [[1, 2]]}'


def start(base_dir: Path, *command: str) -> tuple[ProcessTarget, Launch]:
    port = free_port()
    variables = {"SAGEMAKER_BIND_TO_PORT": str(port)}
    launch = Launch(base_dir=base_dir, folders={}, variables=variables, port=port)
    return ProcessTarget([sys.executable, *command]), launch_of(launch)


def pack(path: Path, **files: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(content)
            archive.addfile(member, BytesIO(content))


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Return a folder with four models, each with a number."""
    folder = tmp_path / "prefix"
    for number in range(4):
        pack(folder / f"team/{number}.tar.gz", weights_txt=str(number).encode())
    return folder


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """Return a server with room for two models."""
    base_dir = tmp_path / "ml"
    base_dir.mkdir()
    with endpoint.running(*start(base_dir, servers.__file__, "TwoModels"), 20) as server:
        yield server


@pytest.fixture
def models(tmp_path: Path, prefix: Path, running: Running) -> MultiModelEndpoint:
    return MultiModelEndpoint(running, tmp_path / "ml", prefix, in_container=False)


def result(response: Response) -> int:
    assert response.status == 200, str(response)
    return int(json.loads(response.body)["sum"])


def test_least_recently_used_model_is_evicted(models: MultiModelEndpoint, tmp_path: Path) -> None:
    assert [result(models.invoke(f"team/{number}.tar.gz", BODY)) for number in (0, 1, 0, 2, 0)] == [
        3,
        4,
        3,
        5,
        3,
    ]
    # 1 was evicted for 2, and 0 was kept.
    assert (models.loads, models.unloads) == (3, 1)
    assert len([*(tmp_path / "ml/models").iterdir()]) == 2


def test_model_that_appears_later_is_loaded(models: MultiModelEndpoint, prefix: Path) -> None:
    with pytest.raises(UserError, match=r"no model 'new\.tar\.gz'"):
        models.invoke("new.tar.gz", BODY)
    pack(prefix / "new.tar.gz", weights_txt=b"40")

    assert result(models.invoke("new.tar.gz", BODY)) == 43


def test_parallel_requests_for_more_models_than_fit_get_their_own_model(
    models: MultiModelEndpoint,
) -> None:
    def ask(request: int) -> bool:
        number = request * 7 % 4
        return result(models.invoke(f"team/{number}.tar.gz", BODY)) == 3 + number

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(60)))
    models.unload_all()
    assert models.loads == models.unloads


def test_model_that_the_server_has_lost_is_loaded_again(
    models: MultiModelEndpoint, running: Running
) -> None:
    assert result(models.invoke("team/0.tar.gz", BODY)) == 3
    (name,) = json.loads(call(running.address, "GET", "/models", timeout=5).body)["models"]
    call(running.address, "DELETE", f"/models/{name['modelName']}", timeout=5)

    assert result(models.invoke("team/0.tar.gz", BODY)) == 3
    assert (models.loads, models.unloads) == (2, 0)


def test_model_that_cannot_be_loaded_is_the_servers_response(
    models: MultiModelEndpoint, prefix: Path, tmp_path: Path
) -> None:
    pack(prefix / "broken.tar.gz", readme=b"no weights")
    (prefix / "text.tar.gz").write_text("not a tar")

    pack(prefix / "empty.tar.gz")
    pack(prefix / "xz.tar.gz", weights_txt=os.urandom(50_000))
    damaged = bytearray(lzma.compress(gzip.decompress((prefix / "xz.tar.gz").read_bytes())))
    damaged[30_000] ^= 1
    (prefix / "xz.tar.gz").write_bytes(damaged)
    for name, kind, path in (("link", tarfile.LNKTYPE, "a"), ("nul", tarfile.REGTYPE, "a\0b")):
        with tarfile.open(prefix / f"{name}.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo()
            member.type, member.linkname, member.pax_headers = kind, "missing", {"path": path}
            archive.addfile(member)

    for name in ("broken", "empty"):
        assert models.invoke(f"{name}.tar.gz", BODY).status == 500
    for name in ("nul", "xz", "link"):
        with pytest.raises(UserError, match=rf"{name}\.tar\.gz cannot be extracted"):
            models.invoke(f"{name}.tar.gz", BODY)
    with pytest.raises(UserError, match=r"text\.tar\.gz is not an archive \(\.tar\.gz\)$"):
        models.invoke("text.tar.gz", BODY)
    with pytest.raises(UserError, match="no model 'aaa"):
        models.invoke("a" * 300, BODY)
    pack(tmp_path / "secret.tar.gz", weights_txt=b"1")
    with pytest.raises(UserError, match="no model"):
        models.invoke("../secret.tar.gz", BODY)
    assert [*(tmp_path / "ml/models").iterdir()] == []


@pytest.fixture
def packed(tmp_path: Path, artifact: Path, other_artifact: Path) -> Path:
    """Return a folder with two models."""
    folder = tmp_path / "prefix"
    folder.mkdir()
    for name, model in (("first", artifact), ("second", other_artifact)):
        pack_model(model, folder / f"{name}.tar.gz")
    return folder


# The endpoint continues when its starter ends.
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_deployed_models_are_chosen_by_name(
    tmp_path: Path,
    packed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    text = 'name = "hands"\n[endpoint]\nkind = "multi-model"\n'
    text += 'environment = { SAGEMAKER_MAX_PAYLOAD_IN_MB = "1" }\n'
    Path("settings.toml").write_text(text)
    Path("image").write_bytes(PNG)
    (late := packed / "second.tar.gz").rename("later.tar.gz")

    def run(verb: str, *more: str) -> tuple[int, str, str]:
        code = main([verb, "settings.toml", *more, "--local", "--quiet"])
        return code, *capsys.readouterr()

    def ask(model: str) -> str:
        code, output, errors = run("predict", "image", "--model", model, "--json")
        assert code == 0, errors
        return output

    port = free_port()
    assert main(["deploy", "settings.toml", "--local", "--job", "prefix", f"--port={port}"]) == 0
    try:
        printed = capsys.readouterr()
        assert "model first.tar.gz\n" in printed.out
        next_step = "predict settings.toml IMAGE --model NAME.tar.gz --local\n"
        assert printed.err == f"next: image-classifier {next_step}"
        first = ask("first.tar.gz")
        errors = run("predict", "image", "--model", "second.tar.gz")[2]
        assert errors.startswith("image-classifier: no model 'second.tar.gz' in ")
        assert errors.endswith("prefix, which has first.tar.gz\n")
        Path("later.tar.gz").rename(late)
        assert ask("second.tar.gz") != first
        assert ask("first.tar.gz") == first
        Path("-image").write_bytes(PNG)
        options = ["--model", "first.tar.gz", "--local", "--port", str(port)]
        assert main(["predict", "settings.toml", "./-image", *options]) == 0
        next_step = f"explain settings.toml ./-image --model first.tar.gz --local --port {port}\n"
        assert capsys.readouterr().err == f"next: image-classifier {next_step}"
        assert "no model: add --model" in run("predict", "image")[2]
        for name in ("鳥.tar.gz", "a\nb.tar.gz"):
            errors = run("predict", "image", "--model", name)[2]
            assert "that are not printable ASCII: rename its file" in errors
        address, target = ("127.0.0.1", port), {"X-Amzn-SageMaker-Target-Model": "first.tar.gz"}
        statuses = [
            call(address, "POST", "/invocations", timeout=9, body=body, headers=headers).status
            for headers, body in (({}, PNG), (target, b" " * 2**21), (target, b" " * 2**25))
        ]
        assert statuses == [400, 413, 413]
    finally:
        assert run("delete", "--yes")[1] == "the server is stopped\n"
    assert not call(address, "GET", "/ping", timeout=5).is_success
    log = Path(".launcher/hands/deployed/serving.log").read_text()
    assert log.count("target=first.tar.gz") == 4


def test_response_above_the_limit_is_an_error(
    models: MultiModelEndpoint, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"X-Amzn-SageMaker-Target-Model": "team/0.tar.gz", "Content-Type": "application/json"}
    with router.Router(("127.0.0.1", 0), running, models) as server, ThreadPoolExecutor() as pool:
        pool.submit(server.serve_forever)

        def ask() -> Response:
            address = ("127.0.0.1", server.server_port)
            return call(address, "POST", "/invocations", timeout=9, body=BODY, headers=headers)

        complete = ask()
        monkeypatch.setattr(multi_model_endpoint, "MAX_BYTES", len(complete.body) - 1)
        cut = ask()
        server.shutdown()

    assert (complete.status, cut.status) == (200, 502)
    assert b"the response has more than 25 MB: send fewer images" in cut.body


def test_router_ends_with_its_server(tmp_path: Path) -> None:
    port = free_port()
    program = router.program(tmp_path, tmp_path, port, {}, None)
    with program.start(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not call(("127.0.0.1", port), "GET", "/ping", timeout=2).is_success:
            assert process.poll() is None
            time.sleep(0.1)
        (server,) = children(process.pid)
        os.kill(server, signal.SIGKILL)
        _, errors = process.communicate()

    assert process.returncode == 1
    assert "router: the server ended with exit code 137: see its lines above" in str(errors)


def test_server_of_a_killed_router_is_stopped(tmp_path: Path) -> None:
    port = free_port()
    program = router.program(tmp_path, tmp_path, port, {"SAGEMAKER_MULTI_MODEL": "true"}, None)
    process = processes.serve(tmp_path, port, program)
    process.kill()
    process.wait()

    assert processes.port_of_server(tmp_path) == port
    # All processes with the lock have ended.
    assert processes.stop(tmp_path)
    assert processes.port_of_server(tmp_path) is None


def test_our_server_with_two_models(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prefix, base_dir = Path(packed.name), Path("ml")
    base_dir.mkdir()
    headers = {"Content-Type": "image/png", "Accept": "text/csv"}
    program = endpoint.server(base_dir, {}, folders={}, container=None)
    with endpoint.running(program[0], launch_of(program[1]), 60) as running:
        models = MultiModelEndpoint(running, base_dir, prefix, in_container=False)
        first, second, again = (
            models.invoke(f"{name}.tar.gz", PNG, headers) for name in ("first", "second", "first")
        )

    assert first.status == second.status == 200
    assert first.body == again.body != second.body
    assert models.loads == 2
