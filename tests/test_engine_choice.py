"""The choice of containers or processes: the engine of the current context of `docker`."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from container.classifier.errors import UserError
from image_classifier.platform.containers import CHOICE_VARIABLE, TRAIN_IMAGE, choose


class EmptyEngine(BaseHTTPRequestHandler):
    """Responds as a Docker engine without container images."""

    def do_GET(self) -> None:
        version = {"ApiVersion": "1.44", "MinAPIVersion": "1.24"}
        body = json.dumps(version if self.path.endswith("/version") else []).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing: the client of a Unix socket has no address."""


@pytest.fixture
def _context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Choose a context of `docker`, whose engine has no container images."""
    path = tmp_path / "engine"
    endpoint = {"docker": {"Host": f"unix://{path}", "SkipTLSVerify": False}}
    folder = tmp_path / "contexts/meta" / hashlib.sha256(b"mine").hexdigest()
    folder.mkdir(parents=True)
    document = {"Name": "mine", "Metadata": {}, "Endpoints": endpoint}
    (folder / "meta.json").write_text(json.dumps(document))
    (tmp_path / "config.json").write_text('{"currentContext": "mine"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", CHOICE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    with ThreadingUnixStreamServer(str(path), EmptyEngine) as engine:
        engine.daemon_threads = True
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        yield
        engine.shutdown()


@pytest.mark.usefixtures("_context")
def test_engine_of_the_current_context_is_used() -> None:
    with pytest.raises(UserError, match=f"no container image {TRAIN_IMAGE}"):
        choose(TRAIN_IMAGE, chosen=True)
    assert choose(TRAIN_IMAGE, chosen=None) is False
