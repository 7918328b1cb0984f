"""A server with SageMaker's contract that is not this project's: it detects a red patch."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
from PIL import Image

from container.classifier.preprocessing import Pixels
from tests.red_patch import CLASS_NAMES

Rows = npt.NDArray[np.float64]


def patch_probabilities(images: Pixels) -> Rows:
    """Return probabilities (N, 2): of no patch, and of a patch of 8 x 8 red pixels."""
    red, green, blue = np.moveaxis(images.astype(float) / 255, 3, 0)
    redness = red - (green + blue) / 2
    count, height, width = redness.shape
    rows, columns = height // 8, width // 8
    blocks = redness[:, : 8 * rows, : 8 * columns].reshape(count, rows, 8, columns, 8)
    logits = 20 * (blocks.mean(axis=(2, 4)).max(axis=(1, 2)) - 0.4)
    patch = 1 / (1 + np.exp(-logits))
    return np.stack([1 - patch, patch], axis=1)


def ours(rows: Rows) -> object:
    """Return a response in the format of this project's server."""
    predictions = [{"probabilities": row} for row in rows.tolist()]
    return {"predictions": predictions, "class_names": list(CLASS_NAMES)}


@dataclass
class Behavior:
    """What the server does, and the requests that it received."""

    probabilities: Callable[[Pixels], Rows] = patch_probabilities
    answer: Callable[[Rows], object] = ours
    accepts_batches: bool = True
    busy: int = 0
    """Number of requests to reject with 503 first."""
    fails_after: int | None = None
    """Number of requests after which the response is 500."""

    port: int = 0
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    images: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def decode(body: bytes, content_type: str) -> Pixels:
    if content_type == "application/x-npy":
        images: Pixels = np.load(io.BytesIO(body), allow_pickle=False)
        return images if images.ndim == 4 else images[None]
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))[None]


@contextmanager
def patch_server(behavior: Behavior | None = None) -> Iterator[Behavior]:
    """Run a server; changes of its behavior apply from the next request."""
    served = behavior or Behavior()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with served.lock:
                served.paths.append(unquote(self.path))
                served.headers.append(dict(self.headers))
                served.in_flight += 1
                served.max_in_flight = max(served.max_in_flight, served.in_flight)
                is_busy, served.busy = served.busy > 0, served.busy - 1
                is_broken = served.fails_after is not None
                is_broken = is_broken and len(served.paths) > (served.fails_after or 0)
            try:
                self._answer(body, is_busy=is_busy, is_broken=is_broken)
            finally:
                with served.lock:
                    served.in_flight -= 1

        def _answer(self, body: bytes, *, is_busy: bool, is_broken: bool) -> None:
            images = decode(body, self.headers["Content-Type"])
            if is_busy:
                self._send(503, {"error": "busy"}, {"Retry-After": "0"})
            elif is_broken:
                self._send(500, {"error": "the model broke"})
            elif len(images) > 1 and not served.accepts_batches:
                self._send(415, {"error": "one image a request"})
            else:
                served.images += len(images)
                self._send(200, served.answer(served.probabilities(images)))

        def _send(self, status: int, answer: object, headers: dict[str, str] | None = None) -> None:
            if status != 200 and self.path.startswith("/endpoints/"):
                # SageMaker wraps errors of the container.
                answer = {"OriginalStatusCode": status, "OriginalMessage": json.dumps(answer)}
                status, headers = 424, {"x-amzn-ErrorType": "ModelError"}
            is_text = isinstance(answer, str)
            body = (str(answer) if is_text else json.dumps(answer)).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            kind = "text/csv; charset=utf-8" if is_text else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
