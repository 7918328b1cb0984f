"""The server of `deploy --local`: one model, or many behind one port."""

import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from container.classifier.environment import MULTI_MODEL_VARIABLE
from container.classifier.errors import UserError
from container.classifier.manifest import MANIFEST
from container.classifier.media_types import TARGET_MODEL
from image_classifier.local.jobs import DEPLOYED, FOLDER, require_success, trained
from image_classifier.local.packing import pack
from image_classifier.platform import deployment, endpoint, opt_ml, processes, router
from image_classifier.platform.archives import extract
from image_classifier.platform.multi_model_endpoint import names_in
from image_classifier.platform.sandbox.http_call import call
from image_classifier.platform.sandbox.launch import Limits
from image_classifier.sagemaker import invocation, prediction
from image_classifier.settings.inference import Endpoint
from image_classifier.settings.settings_file import SettingsFile

# Folder of the models of a multi-model endpoint, by default.
MODELS = "models"

PORT = 8080


def deploy(
    file: SettingsFile,
    folder: Path,
    archive: Path | None,
    port: int,
    *,
    container: Limits | None = None,
) -> None:
    """Serve a model on this machine until `delete --local`; by default the last trained one.

    `container` limits the container of the server; None: it is a process.

    Raises:
        UserError: the model is missing, the last training failed, or the server does not become
            healthy.
    """
    if archive is None:
        base_dir = trained(folder)
    else:
        base_dir = folder / DEPLOYED
        opt_ml.create(base_dir)
        unpacked = _unpack(archive, base_dir)
    variables = file.settings.endpoint.environment
    serve: Callable[[], object]
    if container is not None:
        target = endpoint.server(
            base_dir,
            variables,
            folders={"model": False},
            container=container,
            published=(processes.bind_address(), port),
        )
        serve = partial(deployment.serve, *target)
    else:
        program = processes.as_process(base_dir, port, variables=variables)
        serve = partial(processes.serve, base_dir, port, program)
    _free_port(folder, port)
    if archive is not None:
        # Not before, so that a running server keeps its files.
        opt_ml.remove(base_dir / "model")
        unpacked.rename(base_dir / "model")
    serve()


def deploy_multi_model(
    file: SettingsFile,
    folder: Path,
    source: Path | None,
    port: int,
    *,
    container: Limits | None = None,
    show: Callable[[str], None] = lambda _text: None,
) -> None:
    """Serve the models in a folder, each on request, until `delete --local`.

    Args:
        file: the settings.
        folder: everything that the settings make on this machine.
        source: folder of models, `NAME.tar.gz`; or one of them, or None for the last trained one,
            which is copied into the folder `models`.
        port: TCP port of this machine.
        container: limits of a container for the server; None: it is a process.
        show: prints a line.

    Raises:
        UserError: the model is missing, the last training failed, or the server does not become
            healthy.
    """
    models = folder / MODELS
    if source is not None and source.is_dir():
        models = source
    else:
        models.mkdir(parents=True, exist_ok=True)
        if source is None:
            pack(trained(folder) / "model", models / f"{file.settings.name}.tar.gz")
        elif source.resolve() != (copy := models.resolve() / source.name):
            shutil.copyfile(source, copy)
    base_dir = folder / DEPLOYED
    opt_ml.create(base_dir)
    variables = {**file.settings.endpoint.environment, MULTI_MODEL_VARIABLE: "true"}
    program = router.program(base_dir, models, port, variables, container)
    _free_port(folder, port)
    processes.serve(base_dir, port, program)
    names = names_in(models)
    for name in names:
        show(f"model {name}")
    if not names:
        show(f"no model in {models} yet: copy NAME.tar.gz there")


def stop(folder: Path) -> bool:
    """Stop the server, and remove what killed commands left; return whether one was running.

    Raises:
        UserError: a server is starting, or the Docker engine cannot remove a container.
    """
    were_running = [processes.stop(folder / name) for name in (FOLDER, DEPLOYED)]
    return deployment.stop(folder) or any(were_running)


def port(folder: Path) -> int:
    """Return the port of the running server.

    Raises:
        UserError: none is running, because the last training failed or for another reason; or a
            server is starting.
    """
    if port := _port(folder):
        return port
    if reason := deployment.why_ended(folder):
        raise UserError(
            f"the server ended with {reason}: read `logs --local --endpoint`, "
            "and start it again with `deploy --local`"
        )
    require_success(folder)
    raise UserError(
        "no server of these settings is running: `deploy --local` first, "
        "or name the port of another server with --port"
    )


def _port(folder: Path) -> int | None:
    ports = (processes.port_of_server(folder / name) for name in (FOLDER, DEPLOYED))
    return next(filter(None, ports), None) or deployment.port_of_server(folder)


def _unpack(archive: Path, base_dir: Path) -> Path:
    """Extract a model beside the one that is served; return its folder.

    Raises:
        UserError: it is not an archive, or not of a model.
    """
    folder = base_dir / "model.partial"
    shutil.rmtree(folder, ignore_errors=True)
    extract(archive, folder)
    if not (folder / MANIFEST).is_file():
        raise UserError(f"no {MANIFEST} in {archive}: `train --local` writes a model")
    return folder


def _free_port(folder: Path, port: int) -> None:
    """Stop the server; if another program listens on the port, raise an error and stop nothing."""
    if _port(folder) != port:
        processes.require_free_port(port)
    stop(folder)


def predict(
    images: Sequence[Path], port: int, *, top: int | None = None, model: str | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every image with the local server's response, or with an error if it is rejected.

    The response has the `top` classes or all of them. `model` is one of a multi-model endpoint's.

    Raises:
        UserError: no server responds, or it rejects every request.
    """
    for image in images:
        try:
            body, media_type = prediction.read_image(image, Endpoint())
            yield image, _predict(body, media_type, port, top=top, model=model)
        except invocation.RejectedImageError as error:
            yield image, error.document


def _predict(
    body: bytes, media_type: str, port: int, *, top: int | None, model: str | None
) -> dict[str, Any]:
    headers = {"Content-Type": media_type, "Accept": invocation.accept(top)}
    if model is not None:
        headers[TARGET_MODEL] = model
    address = processes.client_address(port)
    response = call(address, "POST", "/invocations", timeout=60, body=body, headers=headers)
    if response.status is None:
        raise _no_server(port, response)
    return invocation.decode_response(response.body, response.status)


def require_server(port: int) -> None:
    """Check that a local server accepts connections.

    Raises:
        UserError: it does not.
    """
    try:
        socket.create_connection(processes.client_address(port), timeout=5).close()
    except OSError as error:
        raise _no_server(port, error) from None


def _no_server(port: int, reason: object) -> UserError:
    return UserError(f"no server responds on port {port} ({reason}): `deploy --local` first")
