"""SageMaker's side of a training job: its files under /opt/ml, read and written."""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from container.classifier.errors import UserError
from container.classifier.vocabulary import (
    CHANNEL_NAMES,
    JOB_NAME_VARIABLE,
    TEST,
    TRAINING,
    VALIDATION,
    WEIGHTS,
    find_channel,
)

logger = logging.getLogger(__name__)

# The service puts its own words before ours and keeps 1,024 characters of both.
MAX_FAILURE_CHARACTERS = 950


@dataclass(frozen=True, kw_only=True, slots=True)
class Channels:
    """The folders of the job's input data."""

    training: Path
    validation: Path | None
    test: Path | None
    weights: Path | None
    unused: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hosts:
    """The machines of the job."""

    current: str
    names: tuple[str, ...]
    network_interface: str

    @property
    def rank(self) -> int:
        """This host's place: of the list, never the number in its name (algo-10 < algo-2)."""
        return self.names.index(self.current)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingEnvironment:
    """Paths of a training job below its base folder, and the settings found there."""

    base_dir: Path

    @property
    def model_dir(self) -> Path:
        """What SageMaker packs as model.tar.gz."""
        return self.base_dir / "model"

    @property
    def output_data_dir(self) -> Path:
        """What SageMaker packs as output.tar.gz."""
        return self.base_dir / "output" / "data"

    @property
    def output_dir(self) -> Path:
        """What holds the records of the training, beside the files for `output_data_dir`."""
        return self.base_dir / "output"

    @property
    def hook_configuration_path(self) -> Path:
        """What SageMaker says of the tensors to record, where it does."""
        return self._config_path("debughookconfig.json")

    @property
    def profiler_configuration_path(self) -> Path:
        """What SageMaker says of the profiler, where it does."""
        return self._config_path("profilerconfig.json")

    @property
    def checkpoint_dir(self) -> Path:
        """What SageMaker keeps in step with S3 while the job runs."""
        config = self._config("checkpointconfig.json")
        path = config.get("LocalPath") if isinstance(config, dict) else None
        directory = Path(path) if isinstance(path, str) else self.base_dir / "checkpoints"
        # Every trial of a tuning job gets the same S3 prefix; each needs a folder of its own.
        if "_tuning_objective_metric" in self.hyperparameters():
            directory /= os.environ.get(JOB_NAME_VARIABLE, "trial")
        return directory

    def hyperparameters(self) -> Mapping[str, object]:
        """Return hyperparameters.json as it stands.

        Raises:
            UserError: it is missing or no JSON object.
        """
        config = self._config("hyperparameters.json")
        if config is None:
            message = (
                f"no {self._config_path('hyperparameters.json')}: SageMaker writes it for every "
                "job; outside of SageMaker, local_test/train_local.sh does"
            )
            raise UserError(message)
        if not isinstance(config, dict):
            message = f"hyperparameters.json must hold an object, got {type(config).__name__}"
            raise UserError(message)
        return config

    def channels(self) -> Channels:
        """Find the input folders by inputdataconfig.json.

        Raises:
            UserError: there is no training channel, it comes by Pipe, or its folder is missing.
        """
        config = self._config("inputdataconfig.json")
        if config is None:
            config = {}
        if not isinstance(config, dict):
            message = f"inputdataconfig.json must hold an object, got {type(config).__name__}"
            raise UserError(message)
        for name, channel in config.items():
            mode = channel.get("TrainingInputMode") if isinstance(channel, dict) else None
            if mode == "Pipe":
                message = (
                    f"channel {name!r} comes by Pipe, which holds no image files: "
                    "set its input_mode to 'File' or 'FastFile'"
                )
                raise UserError(message)
        return self._choose(set(config))

    def hosts(self) -> Hosts:
        """Return the machines of resourceconfig.json; without one, this machine alone.

        Raises:
            UserError: the list is none, or lacks the current host.
        """
        config = self._config("resourceconfig.json")
        if not isinstance(config, dict) or "hosts" not in config:
            return Hosts(current="localhost", names=("localhost",), network_interface="lo")
        hosts = config["hosts"]
        if not (isinstance(hosts, list) and all(isinstance(host, str) for host in hosts)):
            message = f"resourceconfig.json: hosts must be a list of names, got {hosts!r}"
            raise UserError(message)
        names = tuple(sorted(hosts))
        current = str(config.get("current_host"))
        if current not in names:
            message = f"resourceconfig.json: current_host {current!r} is not one of {names}"
            raise UserError(message)
        interface = str(config.get("network_interface_name") or "eth0")
        return Hosts(current=current, names=names, network_interface=interface)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second training out of the same folder, which would delete this one's files.

        Raises:
            UserError: another is running there.
        """
        try:
            descriptor = os.open(self.base_dir, os.O_RDONLY)
        except OSError:
            # Without the folder there is nothing to train on, and a better message to come.
            yield
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another training is running in {self.base_dir}: wait for it or stop it"
            raise UserError(message) from None
        except OSError:
            # Some shared folders know no locks.
            logger.debug("%s cannot be locked", self.base_dir)
        try:
            yield
        finally:
            os.close(descriptor)

    def write_failure(self, text: str, *, unless_there_is_one: bool = False) -> None:
        """Tell SageMaker why the job failed."""
        self._failure_path.parent.mkdir(parents=True, exist_ok=True)
        # A file's name need not be UTF-8; the sentence about it is.
        data = text[:MAX_FAILURE_CHARACTERS].encode(errors="backslashreplace")
        mode = "xb" if unless_there_is_one else "wb"
        with contextlib.suppress(FileExistsError), self._failure_path.open(mode) as file:
            file.write(data)

    def forget_failure(self) -> None:
        """Drop what an earlier run in the same folder said."""
        self._failure_path.unlink(missing_ok=True)

    @property
    def _failure_path(self) -> Path:
        return self.base_dir / "output" / "failure"

    def _choose(self, names: set[str]) -> Channels:
        found = {channel: find_channel(channel, names) for channel in CHANNEL_NAMES}
        others = names.difference(*CHANNEL_NAMES.values())
        images = sorted(names.difference(CHANNEL_NAMES[WEIGHTS]))
        if found[TRAINING] is None and others and len(images) == 1:
            # A single channel of images is for training, whatever its name is.
            found[TRAINING] = images[0]
        if found[TRAINING] is None:
            message = (
                f"no channel called 'training'; found: {', '.join(images) or 'none'}. "
                "Pass it to fit() as {'training': 's3://...'}"
            )
            raise UserError(message)
        paths = {
            channel: self._channel_path(name) for channel, name in found.items() if name is not None
        }
        return Channels(
            training=paths[TRAINING],
            validation=paths.get(VALIDATION),
            test=paths.get(TEST),
            weights=paths.get(WEIGHTS),
            unused=tuple(sorted(names.difference(filter(None, found.values())))),
        )

    def _channel_path(self, name: str) -> Path:
        path = self.base_dir / "input" / "data" / name
        if not path.is_dir():
            message = f"channel {name!r} has no folder {path}"
            raise UserError(message)
        return path

    def _config_path(self, name: str) -> Path:
        return self.base_dir / "input" / "config" / name

    def _config(self, name: str) -> object:
        path = self._config_path(name)
        try:
            document: object = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            message = f"{path} is not JSON: {error}"
            raise UserError(message) from None
        return document
