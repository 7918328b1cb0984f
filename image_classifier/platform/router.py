"""One port in front of the models of a multi-model endpoint, as SageMaker's runtime is.

    python -m image_classifier.platform.router --help

A request to `/invocations` names its model in the header X-Amzn-SageMaker-Target-Model, which the
AWS SDKs call TargetModel. SIGTERM lets the requests in flight finish.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from container.classifier.errors import UserError
from container.classifier.media_types import JSON, TARGET_MODEL
from image_classifier.platform import endpoint, processes
from image_classifier.platform.multi_model_endpoint import (
    MAX_BYTES,
    MODELS,
    MultiModelEndpoint,
    launch_of,
)
from image_classifier.platform.program import Program, handle_stop_signals
from image_classifier.platform.sandbox.http_call import Response, call
from image_classifier.platform.sandbox.launch import Limits, Running

_PING_SECONDS = 2

_PATHS = "only GET /ping and POST /invocations exist"

_REQUEST_HEADERS = ("Content-Type", "Content-Encoding", "Accept")
_RESPONSE_HEADERS = ("content-type", "retry-after")


class _StopError(Exception):
    """SIGTERM or SIGINT has arrived."""


class Router(ThreadingHTTPServer):
    """The HTTP server, which ends after the requests in flight."""

    daemon_threads = False

    def __init__(
        self, address: tuple[str, int], running: Running, models: MultiModelEndpoint
    ) -> None:
        """Listen on `address`, for the server `running` and its `models`."""
        super().__init__(address, _Handler)
        self.running, self.models = running, models

    def service_actions(self) -> None:
        """End if the server has ended; called every half second."""
        if (code := self.running.exit_code()) is not None:
            reason = self.running.why_killed() or "see its lines above"
            raise UserError(f"the server ended with exit code {code}: {reason}")


class _Handler(BaseHTTPRequestHandler):
    server: Router

    # Between two packets of a request.
    timeout = 60

    def do_GET(self) -> None:
        if self.path == "/ping":
            address = self.server.running.address
            self._respond(call(address, "GET", "/ping", timeout=_PING_SECONDS))
        else:
            self._reject(HTTPStatus.NOT_FOUND, _PATHS)

    def do_POST(self) -> None:
        length, model = self.headers.get("Content-Length", ""), self.headers.get(TARGET_MODEL)
        if self.path != "/invocations":
            self._reject(HTTPStatus.NOT_FOUND, _PATHS)
        elif not length.isascii() or not length.isdecimal():
            self._reject(HTTPStatus.LENGTH_REQUIRED, "the request needs a Content-Length")
        elif int(length[:20]) > MAX_BYTES:
            limit = f"the body has more than {MAX_BYTES // 2**20} MB"
            self._reject(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, limit)
        elif model is None:
            self._reject(HTTPStatus.BAD_REQUEST, f"no model: set {TARGET_MODEL}: NAME.tar.gz")
        else:
            body = self.rfile.read(int(length))
            given = {name: self.headers.get(name) for name in _REQUEST_HEADERS}
            headers = {name: value for name, value in given.items() if value is not None}
            try:
                response = self.server.models.invoke(model, body, headers)
            except UserError as error:
                self._reject(HTTPStatus.NOT_FOUND, str(error))
            else:
                self._respond(response)

    def _respond(self, response: Response) -> None:
        if response.status is None:
            self._reject(HTTPStatus.BAD_GATEWAY, f"the server: {response}")
            return
        if response.is_cut:
            limit = f"the response has more than {MAX_BYTES // 2**20} MB: send fewer images"
            self._reject(HTTPStatus.BAD_GATEWAY, limit)
            return
        self.send_response(response.status)
        for name in _RESPONSE_HEADERS:
            if name in response.headers:
                self.send_header(name, response.headers[name])
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    def _reject(self, status: HTTPStatus, message: str) -> None:
        error = {"code": status.phrase.lower().replace(" ", "_"), "message": message}
        body = json.dumps({"error": error}).encode()
        self._respond(Response(seconds=0, status=status, headers={"content-type": JSON}, body=body))


def program(
    base_dir: Path,
    models: Path,
    port: int,
    variables: dict[str, str],
    container: Limits | None,
) -> Program:
    """Return the router with its server as a program.

    Args:
        base_dir: folder of the unpacked models.
        models: folder of the target models, `NAME.tar.gz`.
        port: TCP port of this machine that it listens on.
        variables: environment variables of the server.
        container: limits of a container for the server; None: it is a process.
    """
    command = [sys.executable, "-m", "image_classifier.platform.router"]
    command += [f"--base-dir={base_dir.resolve()}", f"--models={models.resolve()}"]
    command.append(f"--port={port}")
    if container is not None:
        command.append("--container")
        limits = {"memory": container.memory, "cpus": container.cpus}
        command += [f"--{name}={value}" for name, value in limits.items() if value is not None]
    # Not their values, which other users could read in the list of processes.
    command += [f"--env={name}" for name in variables]
    return Program(command=command, variables=variables)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base-dir", type=Path, required=True, help="of the unpacked models")
    parser.add_argument("--models", type=Path, required=True, help="folder of NAME.tar.gz")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--container", action="store_true", help="run the container image")
    parser.add_argument("--env", action="append", default=[], help="variable of the server")
    parser.add_argument("--memory", type=int, help="bytes of the container")
    parser.add_argument("--cpus", type=float, help="of the container")
    arguments = parser.parse_args(argv)
    try:
        with handle_stop_signals(_stop), suppress(_StopError):
            _serve(arguments)
    except UserError as error:
        print(f"router: {error}", file=sys.stderr)
        return 1
    return 0


def _stop() -> None:
    raise _StopError


def _serve(arguments: argparse.Namespace) -> None:
    base_dir: Path = arguments.base_dir
    shutil.rmtree(base_dir / MODELS, ignore_errors=True)
    variables = {name: os.environ[name] for name in arguments.env}
    limits = Limits(memory=arguments.memory, cpus=arguments.cpus)
    container = limits if arguments.container else None
    target, launch = endpoint.server(base_dir, variables, folders={}, container=container)
    # The log of this process has that of the server.
    launch = replace(launch_of(launch), output=(sys.stdout.fileno(), sys.stderr.fileno()))
    with endpoint.running(target, launch, processes.STARTUP_SECONDS) as running:
        models = MultiModelEndpoint(
            running, base_dir, arguments.models, in_container=arguments.container
        )
        address = (processes.bind_address(), arguments.port)
        with Router(address, running, models) as router:
            with suppress(_StopError):
                router.serve_forever()
            # It finishes the requests in flight, and the router waits for them.
            running.terminate()


if __name__ == "__main__":
    sys.exit(main())
