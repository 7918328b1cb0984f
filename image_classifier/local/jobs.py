"""`--local`: the same settings on this machine, as plain processes under SageMaker's contract."""

import http.client
import json
from collections.abc import Iterator, Sequence
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

# What the job, its model and its reports lie in, as below /opt/ml; where another model is served.
FOLDER, DEPLOYED = "ml", "deployed"

PORT = 8080


def train(file: SettingsFile, folder: Path, *, from_tuning: bool) -> Path:
    """Train in `folder`; return the model, packed as SageMaker packs one.

    Raises:
        UserError: a channel is missing, or the training failed.
    """
    channels = file.local_channels()
    given = file.settings.job_hyperparameters()
    if from_tuning:
        given |= _best(folder / "tuning" / local_tuning.BEST)
    base_dir = folder / FOLDER
    trial.prepare(base_dir, channels, given)
    exit_code = processes.train(base_dir)
    if exit_code:
        failure = base_dir / opt_ml.FAILURE
        reason = failure.read_text(errors="replace") if failure.is_file() else f"code {exit_code}"
        message = f"the training failed: {reason.splitlines()[0]}"
        raise UserError(message)
    packed = folder / local_tuning.MODEL
    local_tuning.pack(base_dir / "model", packed)
    return packed


def reports(folder: Path) -> list[Path]:
    """Return the pages that the last training has written.

    Raises:
        UserError: they do not exist.
    """
    pages = sorted((folder / FOLDER / "output" / "data").glob("*.html"))
    if not pages:
        message = f"no report in {folder}: `train --local` first"
        raise UserError(message)
    return pages


def deploy(folder: Path, archive: Path | None, port: int) -> None:
    """Serve a model on this machine until `delete --local`; by default the one trained last.

    Raises:
        UserError: there is no model, or the server does not get ready.
    """
    base_dir = folder / FOLDER
    if archive is not None:
        base_dir = folder / DEPLOYED
        opt_ml.create(base_dir)
        extract(archive, base_dir / "model")
    stop(folder)
    processes.serve(base_dir, port)


def stop(folder: Path) -> bool:
    """Stop the server, if there is one; tell whether there was."""
    # Both, also if the first one fails.
    stopped = [processes.stop(folder / name) for name in (FOLDER, DEPLOYED)]
    return any(stopped)


def port(folder: Path) -> int:
    """Return the port that `deploy` was given, or the usual one where nothing is served.

    Raises:
        UserError: a server is being started.
    """
    ports = (processes.port_of_server(folder / name) for name in (FOLDER, DEPLOYED))
    return next(filter(None, ports), PORT)


def predict(images: Sequence[Path], port: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every image with the local server's answer.

    Raises:
        UserError: an image cannot be read, no server responds, or it rejects the image.
    """
    for image in images:
        body, media_type = prediction.read_image(image)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            headers = {"Content-Type": media_type, "Accept": "application/json"}
            connection.request("POST", "/invocations", body, headers)
            answer = connection.getresponse().read()
        except OSError as error:
            message = f"no server responds on port {port} ({error}): `deploy --local` first"
            raise UserError(message) from None
        finally:
            connection.close()
        yield image, prediction.decode_response(answer)


def _best(path: Path) -> dict[str, str]:
    """Return the hyperparameters that a local tuning found."""
    if not path.is_file():
        message = f"no {path}: `tune --local` first"
        raise UserError(message)
    return to_strings(json.loads(path.read_text(encoding="utf-8"))["hyperparameters"])
