"""One run of the doctor: the sandbox, the inputs, the cases of a role."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

from container.classifier.errors import UserError
from image_classifier.platform.archives import extract
from image_classifier.platform.doctor import container_image, multi_model, serving, training
from image_classifier.platform.doctor.cases import (
    CASES,
    MULTI_MODEL,
    SERVE,
    TRAIN,
    TRANSFORM,
    of_role,
)
from image_classifier.platform.doctor.examination import Examination, Options, TimeLimits
from image_classifier.platform.doctor.report import Report
from image_classifier.platform.sandbox.container_target import ContainerTarget
from image_classifier.platform.sandbox.launch import Target
from image_classifier.platform.sandbox.process_target import ProcessTarget

EXAMINERS: Mapping[str, Callable[[Examination], None]] = {
    SERVE: serving.examine,
    MULTI_MODEL: multi_model.examine,
    TRANSFORM: serving.examine,
    TRAIN: training.examine,
}


def diagnose(
    image: str | None,
    command: Sequence[str],
    role: str,
    *,
    options: Options | None = None,
    limits: TimeLimits | None = None,
    ignored: Sequence[str] = (),
) -> Report:
    """Examine a container image, or else a command, in one role.

    Raises:
        UserError: it cannot be examined: no such image, no engine, or an input is wrong.
    """
    if unknown := [case_id for case_id in ignored if case_id not in CASES]:
        raise UserError(f"unknown case {unknown[0]!r}; the cases are {', '.join(CASES)}")
    target: Target
    if image is None:
        target = ProcessTarget(command)
    else:
        target = ContainerTarget(image, "train" if role == TRAIN else "serve")
    with TemporaryDirectory(
        # Files that a container writes as root can be removed by root only.
        prefix="image-classifier-doctor-",
        ignore_cleanup_errors=True,
    ) as folder:
        report = Report(of_role(role, is_container=target.is_container), ignored)
        examination = Examination(
            target=target,
            role=role,
            options=options or Options(),
            limits=limits or TimeLimits(),
            report=report,
            folder=Path(folder),
        )
        if role != TRAIN:
            _prepare_model(examination)
        if isinstance(target, ContainerTarget):
            container_image.check(target, report)
        EXAMINERS[role](examination)
    return report


def _prepare_model(examination: Examination) -> None:
    """Copy or unpack the model into the folder that stands for /opt/ml/model.

    Raises:
        UserError: there is no model, or it is no gzip tar.
    """
    target, source = examination.folder / "model", examination.options.model
    # Programs of other users read it, too.
    examination.folder.chmod(0o755)
    if source is None:
        target.mkdir()
    elif source.is_dir():
        copytree(source, target)
    else:
        target.mkdir()
        try:
            extract(source, target)
        except UserError as error:
            raise UserError(
                f"{source} is neither a folder nor a .tar.gz ({error}): give the content of "
                "/opt/ml/model"
            ) from error
