"""The settings of workers and threads that a load test compares."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from container.classifier.errors import UserError
from image_classifier.platform.doctor import startup
from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.payload import Payload
from image_classifier.platform.doctor.startup import NotReadyError
from image_classifier.platform.doctor.traffic import measure_capacity
from image_classifier.platform.load import Capacity
from image_classifier.platform.sandbox.container_target import ContainerTarget
from image_classifier.platform.sandbox.launch import Launch

LABEL = "image-classifier.load-settings"
"""Label of container images: settings, separated by `;`."""

Setting = Mapping[str, str]


def parse(text: str) -> Setting:
    """Return the environment variables in `NAME=VALUE,NAME=VALUE`.

    Raises:
        UserError: it has another form.
    """
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise UserError(f"expected NAME=VALUE,NAME=VALUE for a setting of --load, got {text!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}


def of_examination(examination: Examination) -> Sequence[Setting]:
    """Return the given settings, or else those in the label of the container image.

    Raises:
        UserError: the label has another form.
    """
    target = examination.target
    if examination.options.settings or not isinstance(target, ContainerTarget):
        return examination.options.settings
    text = (target.image.labels or {}).get(LABEL, "")
    return [parse(part) for part in text.split(";") if part.strip()]


def measure(examination: Examination, launch: Launch, valid: Payload, limit: float) -> None:
    """Start the server with each setting, and find the highest rate of requests."""
    for setting in of_examination(examination):
        shown = ",".join(f"{name}={value}" for name, value in setting.items())
        variables = {**launch.variables, **setting}
        try:
            with startup.server(
                # A server that does not start with a setting has no other fault.
                examination.without_report(),
                replace(launch, variables=variables),
                examination.limits.startup,
            ) as running:
                found: Capacity | str = measure_capacity(examination, running, valid, limit)
        except NotReadyError as error:
            found = f"not measured: {error.trouble.message} ({error.trouble.evidence})"
        examination.report.loads[shown] = found
