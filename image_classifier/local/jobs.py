"""`--local`: the same settings on this machine, as plain processes under SageMaker's contract."""

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from container.classifier.errors import UserError
from image_classifier.local import trial
from image_classifier.local import tuning as local_tuning
from image_classifier.platform import opt_ml, processes
from image_classifier.sagemaker import prediction
from image_classifier.sagemaker.reports import extract
from image_classifier.settings.section import to_strings
from image_classifier.settings.settings_file import SettingsFile

# Trees like /opt/ml: of the training job, and of a model from an archive that is served.
FOLDER, DEPLOYED = "ml", "deployed"

PORT = 8080


def train(file: SettingsFile, folder: Path, *, from_tuning: bool) -> Path:
    """Train in `folder`; return the model, packed as SageMaker packs one.

    Raises:
        UserError: a channel is missing, or the training failed.
    """
    channels = file.local_channels()
    hyperparameters = file.settings.job_hyperparameters()
    if from_tuning:
        best = folder / "tuning" / local_tuning.BEST
        if not best.is_file():
            raise UserError(f"no {best}: `tune --local` first")
        hyperparameters |= to_strings(json.loads(best.read_text("utf-8"))["hyperparameters"])
    base_dir = folder / FOLDER
    trial.prepare(base_dir, channels, hyperparameters)
    exit_code = processes.train(base_dir)
    if exit_code:
        failure = base_dir / opt_ml.FAILURE
        reason = failure.read_text(errors="replace") if failure.is_file() else f"code {exit_code}"
        raise UserError(f"the training failed: {reason.splitlines()[0]}")
    packed = folder / local_tuning.MODEL
    local_tuning.pack(base_dir / "model", packed)
    return packed


def reports(folder: Path) -> list[Path]:
    """Return the report pages of the last training.

    Raises:
        UserError: no page exists.
    """
    pages = sorted((folder / FOLDER / "output" / "data").glob("*.html"))
    if not pages:
        raise UserError(f"no report in {folder}: `train --local` first")
    return pages


def deploy(folder: Path, archive: Path | None, port: int) -> None:
    """Serve a model on this machine until `delete --local`; by default the last trained one.

    Raises:
        UserError: the model is missing, or the server does not become healthy.
    """
    base_dir = folder / FOLDER
    if archive is not None:
        base_dir = folder / DEPLOYED
        opt_ml.create(base_dir)
        extract(archive, base_dir / "model")
    stop(folder)
    processes.serve(base_dir, port)


def stop(folder: Path) -> bool:
    """Stop the server; return whether one was running."""
    # A list, so that both are stopped.
    was_running = [processes.stop(folder / name) for name in (FOLDER, DEPLOYED)]
    return any(was_running)


def port(folder: Path) -> int:
    """Return the port of the running server, or the default port.

    Raises:
        UserError: a server is starting.
    """
    ports = (processes.port_of_server(folder / name) for name in (FOLDER, DEPLOYED))
    return next(filter(None, ports), PORT)


def predict(images: Sequence[Path], port: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every image with the local server's response.

    Raises:
        UserError: an image cannot be read, no server responds, or the server rejects an image.
    """
    for image in images:
        body, media_type = prediction.read_image(image)
        headers = {"Content-Type": media_type, "Accept": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            try:
                connection.request("POST", "/invocations", body, headers)
                response = connection.getresponse().read()
            except OSError as error:
                raise UserError(
                    f"no server responds on port {port} ({error}): `deploy --local` first"
                ) from None
        yield image, prediction.decode_response(response)
