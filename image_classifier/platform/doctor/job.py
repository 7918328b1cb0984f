"""One training job of the doctor: its inputs, its run and its result."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree, rmtree

from image_classifier.platform import opt_ml
from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.payload import png
from image_classifier.platform.sandbox.launch import Launch, Running
from image_classifier.platform.sandbox.process_target import changes_in
from image_classifier.platform.training import job_variables

_DATA = "input/data"
_IMAGES_PER_CLASS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The inputs of one training job."""

    name: str
    hyperparameters: Mapping[str, object] = field(default_factory=dict)
    has_channels: bool = True
    has_network: bool = False
    has_writable_channels: bool = False
    checkpoints: Path | None = None


@dataclass(kw_only=True, slots=True)
class Result:
    """The end and the files of a job."""

    folder: Path
    exit_code: int | None
    """None: it was killed after the time limit."""
    log: str
    last_line: str
    seconds: float
    is_out_of_memory: bool
    changed_files: list[str]
    """Outside of /opt/ml."""
    changed_data: list[str]
    """Files in channels."""

    @property
    def is_success(self) -> bool:
        """Whether SageMaker reports it as Completed."""
        return self.exit_code == 0

    @property
    def has_model(self) -> bool:
        """Whether /opt/ml/model has a file that is not empty."""
        return any(
            path.is_file() and path.stat().st_size for path in (self.folder / "model").rglob("*")
        )

    @property
    def failure(self) -> Path:
        """The file with the reason of a failure."""
        return self.folder / opt_ml.FAILURE


def run(
    examination: Examination,
    job: Job,
    while_running: Callable[[Running], None] = lambda _running: None,
) -> Result:
    """Run a job to its end, or to the doctor's time limit.

    Raises:
        StartError: the program cannot be executed.
    """
    launch = _prepare(examination, job)
    with changes_in((launch.base_dir / _DATA).resolve()) as changed_data:
        start = time.monotonic()
        running = examination.target.start(launch)
        try:
            while_running(running)
            exit_code = running.wait(examination.limits.job)
            result = Result(
                folder=launch.base_dir,
                exit_code=exit_code,
                log=running.log(),
                last_line=running.last_line(),
                seconds=time.monotonic() - start,
                is_out_of_memory=running.ran_out_of_memory(),
                changed_files=running.changed_files(),
                changed_data=changed_data,
            )
        finally:
            running.close()
    if changed_data:
        # The next job has the same channels.
        copy_data(examination)
    return result


def copy_data(examination: Examination) -> None:
    """Copy the channels for all jobs, or draw images of two classes."""
    target = examination.folder / "data"
    rmtree(target, ignore_errors=True)
    if examination.options.data is not None:
        copytree(examination.options.data, target, dirs_exist_ok=True)
        return
    # The SDK calls the only channel of a job `training`.
    for channel in ("training", "validation"):
        for class_name, color in (("blue", (32, 64, 208)), ("red", (208, 64, 32))):
            folder = target / channel / class_name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(_IMAGES_PER_CLASS):
                red, green, blue = (value + number % 16 for value in color)
                size = 32 + 2 * number + (channel == "training") * 64
                (folder / f"{number}.png").write_bytes(png((red, green, blue), size))


def channels(examination: Examination) -> Iterator[str]:
    """Yield the names of the channels."""
    for path in sorted((examination.folder / "data").iterdir()):
        if path.is_dir():
            yield path.name


def _prepare(examination: Examination, job: Job) -> Launch:
    base_dir = examination.folder / job.name
    for folder in ("input/config", "model", "output/data"):
        (base_dir / folder).mkdir(parents=True)
    data = base_dir / _DATA
    names: list[str] = []
    if job.has_channels:
        data.symlink_to(examination.folder / "data")
        names = [*channels(examination)]
    else:
        data.mkdir()
    opt_ml.write_config(base_dir, job.hyperparameters, names)
    writable = {"input/config": False, _DATA: job.has_writable_channels, "model": True}
    folders = {**writable, "output": True}
    if job.checkpoints is not None:
        (base_dir / "checkpoints").symlink_to(job.checkpoints)
        folders["checkpoints"] = True
    return Launch(
        base_dir=base_dir,
        folders=folders,
        variables={**job_variables(), **examination.options.variables},
        has_network=job.has_network,
        memory=examination.options.memory,
    )
