"""Servers with one fault each: `python servers.py NAME`, with the standard library alone.

The base is healthy. A fault overrides one method, or is one line of `main`.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

MODEL = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")) / "model"
PORT = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
IS_BATCH = os.environ.get("SAGEMAKER_BATCH") == "true"

# Longer than the limits of the tests.
LONG = 1.6


class Healthy(BaseHTTPRequestHandler):
    """Returns the sum of a JSON list: `{"sum": 3}`."""

    protocol_version = "HTTP/1.1"
    server_class: type[HTTPServer] = ThreadingHTTPServer
    max_bytes = 30_000_000

    def do_GET(self) -> None:
        if self.path == "/ping":
            self.ping()
        else:
            self.answer(404, {"error": "no such route"})

    def do_POST(self) -> None:
        body = self.read()
        if self.path != "/invocations":
            self.answer(404, {"error": "no such route"})
        elif body is None:
            self.answer(413, {"error": "too large"})
        else:
            self.invoke(body)

    def read(self) -> bytes | None:
        """Return the body; None: it is too large."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            return self.read_chunks()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        return body if length <= self.max_bytes else None

    def read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def ping(self) -> None:
        self.answer(200)

    def invoke(self, body: bytes) -> None:
        try:
            numbers = json.loads(body)["instances"][0]
            result = self.predict(numbers)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            self.reject(error)
        else:
            self.succeed(result)

    def predict(self, numbers: list[float]) -> float:
        return sum(numbers)

    def succeed(self, result: object) -> None:
        self.answer(200, {"sum": result})

    def reject(self, error: Exception) -> None:
        self.answer(400, {"error": str(error)})

    def answer(
        self, status: int, content: object = None, media_type: str = "application/json"
    ) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        body = b"" if content is None else body
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Flag:
    """What requests of one server share."""

    is_loaded = False
    connections = loads = 0
    started = time.monotonic()
    kept: list[bytes] = []  # noqa: RUF012 - one process
    lock = threading.Lock()


class PingFails(Healthy):
    def ping(self) -> None:
        self.answer(500, {"error": "no model"})


class NoPing(Healthy):
    def ping(self) -> None:
        self.answer(404, {"error": "no such route"})


class SlowPing(Healthy):
    def ping(self) -> None:
        time.sleep(LONG)
        self.answer(200)


class SendsHeadersSlowly(Healthy):
    def ping(self) -> None:
        self.trickle(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000)

    def trickle(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            time.sleep(0.2)


class SendsContinueForever(Healthy):
    def ping(self) -> None:
        while True:
            self.send_response_only(100)
            self.end_headers()
            time.sleep(0.2)


class SendsBodySlowly(SendsHeadersSlowly):
    def ping(self) -> None:
        self.answer(200)

    def succeed(self, result: object) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.trickle(f"{result:1000}".encode())


class LoadsInPing(Healthy):
    def ping(self) -> None:
        with Flag.lock:
            if not Flag.is_loaded:
                time.sleep(LONG)
            Flag.is_loaded = True
        self.answer(200)


class UnstablePing(Healthy):
    def ping(self) -> None:
        Flag.is_loaded = not Flag.is_loaded
        self.answer(200 if Flag.is_loaded else 500)


class PingFailsLater(Healthy):
    def ping(self) -> None:
        self.answer(200 if time.monotonic() - Flag.started < LONG else 500)


class PingFailsAfterRequest(Healthy):
    def ping(self) -> None:
        self.answer(500 if Flag.is_loaded else 200)

    def predict(self, numbers: list[float]) -> float:
        Flag.is_loaded = True
        return sum(numbers)


class PingKnowsOneHost(Healthy):
    def ping(self) -> None:
        self.answer(200 if self.headers["Host"].startswith("127.0.0.1:") else 400)


class KeepsPings(Healthy):
    def ping(self) -> None:
        Flag.kept.append(os.urandom(700_000))
        self.answer(200)


class FailsWhileItLoads(Healthy):
    def invoke(self, body: bytes) -> None:
        if time.monotonic() - Flag.started < LONG:
            self.answer(500, {"error": "no model"})
        else:
            super().invoke(body)


class LoadsInFirstRequest(Healthy):
    def predict(self, numbers: list[float]) -> float:
        with Flag.lock:
            if not Flag.is_loaded:
                time.sleep(LONG)
            Flag.is_loaded = True
        return sum(numbers)


class PingBeforeModel(Healthy):
    def invoke(self, body: bytes) -> None:
        if time.monotonic() - Flag.started < LONG:
            self.answer(503, {"error": "the model is loading"})
        else:
            super().invoke(body)


class PingWithoutModel(Healthy):
    def predict(self, numbers: list[float]) -> float:
        return sum(numbers) + len((MODEL / "weights.txt").read_text())

    def invoke(self, body: bytes) -> None:
        try:
            super().invoke(body)
        except OSError:
            self.answer(500, {"error": "no model"})


class AlwaysFails(Healthy):
    def invoke(self, body: bytes) -> None:
        self.answer(500, {"error": f"{len(body)} bytes"})


class NoRoute(Healthy):
    def invoke(self, body: bytes) -> None:
        self.answer(404, {"error": f"POST /predict takes the {len(body)} bytes"})


class Hangs(Healthy):
    def predict(self, numbers: list[float]) -> float:
        time.sleep(30)
        return sum(numbers)


class AcceptsEverything(Healthy):
    def invoke(self, body: bytes) -> None:
        self.succeed(len(body) * 0)


class ErrorsWithStatus200(Healthy):
    def reject(self, error: Exception) -> None:
        self.answer(200, {"error": str(error)})


class ErrorsWithStatus500(Healthy):
    def reject(self, error: Exception) -> None:
        self.answer(500, {"error": str(error)})


class ErrorsAsTextWithStatus200(Healthy):
    def reject(self, error: Exception) -> None:
        self.answer(200, f"Error: {error}".encode(), "text/plain")


class ErrorsWithoutResponse(Healthy):
    def reject(self, error: Exception) -> None:
        raise ConnectionAbortedError(str(error))


class FailsLater(Healthy):
    def predict(self, numbers: list[float]) -> float:
        Flag.connections += 1
        if Flag.connections > 9:
            raise ConnectionAbortedError
        return sum(numbers)


class ErrorsAsText(Healthy):
    def reject(self, error: Exception) -> None:
        self.answer(400, f"bad request: {error}".encode(), "text/plain")


class ErrorsAsPage(Healthy):
    def reject(self, error: Exception) -> None:
        self.answer(400, f"<html><h1>{error}</h1></html>".encode(), "text/html")


class ErrorsWithoutBody(Healthy):
    def reject(self, error: Exception) -> None:
        self.answer(204 if isinstance(error, KeyError) else 400)


class ErrorsWithTraceback(Healthy):
    def reject(self, error: Exception) -> None:
        text = f'Traceback (most recent call last):\n  File "x.py"\n{error}'
        self.answer(400, {"error": text})


class DiesOfInvalid(Healthy):
    def reject(self, error: Exception) -> None:
        os._exit(len(str(error)) % 7 + 1)


class IgnoresAccept(Healthy):
    def succeed(self, result: object) -> None:
        self.answer(200, f"{result}\n".encode(), "text/csv")


class WrongContentType(Healthy):
    def succeed(self, result: object) -> None:
        self.answer(200, f"sum is {result}".encode(), "application/json")


class NoContentType(Healthy):
    def succeed(self, result: object) -> None:
        body = f"{result}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class NotANumber(Healthy):
    def predict(self, numbers: list[float]) -> float:
        return sum(numbers) * float("nan")


class LargeResponses(Healthy):
    def succeed(self, result: object) -> None:
        self.answer(200, {"sum": result, "padding": "x" * 10_000_000})


class NeedsAccept(Healthy):
    def invoke(self, body: bytes) -> None:
        if "Accept" in self.headers:
            super().invoke(body)
        else:
            self.answer(500, {"error": "no Accept"})


class TooLongContentLength(Healthy):
    def succeed(self, result: object) -> None:
        body = json.dumps({"sum": result}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + 1))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


class OneConnectionAtATime(Healthy):
    server_class = HTTPServer


class OneAtATime(Healthy):
    server_class = HTTPServer
    # An idle connection would block all others.
    protocol_version = "HTTP/1.0"

    def predict(self, numbers: list[float]) -> float:
        time.sleep(LONG / 2)
        return sum(numbers)


class OneRequestPerConnection(Healthy):
    def answer(
        self, status: int, content: object = None, media_type: str = "application/json"
    ) -> None:
        super().answer(status, content, media_type)
        # Not announced by `Connection: close`.
        self.close_connection = True


class LeavesBodiesUnread(Healthy):
    def do_POST(self) -> None:
        if self.headers["Content-Type"] != "application/json":
            self.answer(415, {"error": "only JSON"})
        else:
            super().do_POST()


class FailsTogether(Healthy):
    def predict(self, numbers: list[float]) -> float:
        if not Flag.lock.acquire(blocking=False):
            os.write(2, b"two requests at once\n")
            raise ConnectionAbortedError
        time.sleep(0.02)
        Flag.lock.release()
        return sum(numbers)


class OneMegabyte(Healthy):
    max_bytes = 1_000_000


class DiesOfLargeBody(Healthy):
    def read(self) -> bytes | None:
        if int(self.headers.get("Content-Length") or 0) > self.max_bytes // 10:
            os._exit(1)
        return super().read()


class KeepsRequests(Healthy):
    def predict(self, numbers: list[float]) -> float:
        Flag.kept.append(os.urandom(3_000_000))
        return sum(numbers)


class TooMuchMemory(Healthy):
    def predict(self, numbers: list[float]) -> float:
        Flag.kept.append(os.urandom(1_000_000) * 300)
        time.sleep(30)
        return sum(numbers)


class WritesModel(Healthy):
    def predict(self, numbers: list[float]) -> float:
        (MODEL / "cache.bin").write_bytes(b"compiled")
        return sum(numbers)


class WritesOutside(Healthy):
    def predict(self, numbers: list[float]) -> float:
        Path("/srv/requests.db").write_text(str(numbers))
        return sum(numbers)


class NoChunks(Healthy):
    def read_chunks(self) -> bytes:
        return b""


class WrongParameters(Healthy):
    def do_GET(self) -> None:
        if self.path == "/execution-parameters":
            self.answer(200, {"MaxConcurrentTransforms": 50, "MaxPayloadInMB": 6})
        else:
            super().do_GET()


class HealthyModels(Healthy):
    """A multi-model container, whose models are 3 MB each."""

    registries: ClassVar[list[dict[str, bytes]]] = [{}]

    def do_GET(self) -> None:
        name = self.path.removeprefix("/models/")
        if self.path == "/models":
            models = [{"modelName": key, "modelUrl": "/"} for key in self.models]
            self.answer(200, {"models": models})
        elif name in self.models:
            self.answer(200, {"modelName": name, "modelUrl": "/"})
        else:
            super().do_GET()

    def do_POST(self) -> None:
        body = self.read() or b""
        if self.path == "/models":
            self.load(json.loads(body))
        elif self.path.split("/")[2] in self.models:
            self.invoke(body)
        else:
            self.answer(404, {"error": "not loaded"})

    def load(self, request: dict[str, str]) -> None:
        name = request["model_name"]
        if name in self.models:
            self.answer(409, {"error": "loaded already"})
        elif Path(request["url"]).is_dir():
            self.models[name] = os.urandom(3_000_000)
            self.answer(200, {"modelName": name, "modelUrl": request["url"]})
        else:
            self.answer(400, {"error": "no folder"})

    def do_DELETE(self) -> None:
        name = self.path.removeprefix("/models/")
        if name in self.models:
            self.unload(name)
            self.answer(200, {"modelName": name})
        else:
            self.answer(404, {"error": "not loaded"})

    def unload(self, name: str) -> None:
        del self.models[name]

    def setup(self) -> None:
        super().setup()
        with Flag.lock:
            Flag.connections += 1
            # Each connection has the next worker.
            self.models = self.registries[Flag.connections % len(self.registries)]


class ModelsPerWorker(HealthyModels):
    registries: ClassVar[list[dict[str, bytes]]] = [{}, {}]


class KeepsModels(HealthyModels):
    def unload(self, name: str) -> None:
        Flag.kept.append(self.models.pop(name))


class LoadsAgain(HealthyModels):
    def load(self, request: dict[str, str]) -> None:
        self.models.pop(request["model_name"], None)
        super().load(request)


class ForgetsModels(HealthyModels):
    def do_DELETE(self) -> None:
        self.models.pop(self.path.removeprefix("/models/"), None)
        self.answer(200)


class TwoModelsWithoutStatus(HealthyModels):
    """Has memory for two models, and no status for that."""

    def load(self, request: dict[str, str]) -> None:
        if request["model_name"] not in self.models and len(self.models) == 2:
            self.answer(500, {"error": "no memory"})
        else:
            super().load(request)


class ListsOneModel(HealthyModels):
    def do_GET(self) -> None:
        if self.path == "/models":
            names = [*self.models][:1]
            self.answer(200, {"models": [{"modelName": name, "modelUrl": "/"} for name in names]})
        else:
            super().do_GET()


class LoadsLater(HealthyModels):
    def load(self, request: dict[str, str]) -> None:
        self.answer(200, {"modelName": request["model_name"], "modelUrl": request["url"]})
        threading.Timer(LONG, lambda: self.models.update({request["model_name"]: b""})).start()


class LoadBlocksPing(HealthyModels):
    def load(self, request: dict[str, str]) -> None:
        with Flag.lock:
            # All others are quick, so that tests are.
            Flag.loads += 1
            time.sleep(LONG if Flag.loads == 4 else 0)
            super().load(request)

    def ping(self) -> None:
        with Flag.lock:
            self.answer(200)


class TwoModels(HealthyModels):
    """Has memory for two models, which add the number in their file to the sum."""

    def load(self, request: dict[str, str]) -> None:
        with Flag.lock:
            name = request["model_name"]
            if name not in self.models and len(self.models) == 2:
                self.answer(507, {"error": "no memory"})
            elif not (weights := Path(request["url"], "weights.txt")).is_file():
                self.answer(500, {"error": "no weights"})
            else:
                super().load(request)
                self.models[name] = weights.read_bytes()

    def invoke(self, body: bytes) -> None:
        weights = self.models.get(self.path.split("/")[2])
        if weights is None:
            self.answer(404, {"error": "not loaded"})
        else:
            self.succeed(self.predict(json.loads(body)["instances"][0]) + int(weights))


class LocalOnly(Healthy):
    address = "127.0.0.1"


def serve(handler: type[Healthy], port: int = PORT) -> None:
    server = handler.server_class((getattr(handler, "address", "0.0.0.0"), port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait({signal.SIGTERM})


def wrong_port() -> None:
    with socket.socket() as free:
        free.bind(("0.0.0.0", 0))
        port = free.getsockname()[1]
    serve(Healthy, port)


def import_error() -> None:
    import no_such_package  # type: ignore[import-not-found]  # noqa: F401, PLC0415


def wrong_case() -> None:
    (MODEL / "Weights.TXT").read_text()
    serve(Healthy)


def listens_never() -> None:
    signal.sigwait({signal.SIGTERM})


def ends_at_once() -> None:
    print("nothing to do")


def ignores_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Healthy.server_class(("0.0.0.0", PORT), Healthy).serve_forever()


def leaves_children() -> None:
    if os.fork() == 0:
        Healthy.server_class(("0.0.0.0", PORT), Healthy).serve_forever()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.pause()


def ends_before_children() -> None:
    if os.fork() == 0:
        Healthy.server_class(("0.0.0.0", PORT), Healthy).serve_forever()
    signal.sigwait({signal.SIGTERM})


def becomes_daemon() -> None:
    if os.fork() == 0:
        os.setsid()
        serve(Healthy)


def downloads() -> None:
    # In a separate network, a container has the engine's name server, in the default one the
    # machine's. This needs no network of the machine.
    if "127.0.0.11" in Path("/etc/resolv.conf").read_text():
        raise OSError("Temporary failure in name resolution: example.com")
    serve(Healthy)


def compiles_model() -> None:
    (MODEL / "compiled.bin").write_bytes(b"compiled")
    serve(Healthy)


def grows_at_start() -> None:
    Flag.kept.append(os.urandom(1_000_000) * 300)
    time.sleep(1)
    serve(Healthy)


PROGRAMS = {
    function.__name__: function
    for function in (
        wrong_port,
        import_error,
        wrong_case,
        listens_never,
        ends_at_once,
        ignores_sigterm,
        leaves_children,
        ends_before_children,
        becomes_daemon,
        downloads,
        compiles_model,
        grows_at_start,
    )
}


def main(name: str) -> None:
    # In a container, process 1 would ignore it; threads inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if name in PROGRAMS:
        PROGRAMS[name]()
    else:
        serve(globals()[name])


if __name__ == "__main__":
    main(sys.argv[1])
