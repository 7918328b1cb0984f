"""SageMaker's files of a training job, under /opt/ml."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from container.classifier.channel_names import (
    CHANNEL_NAMES,
    SPLITS,
    TEST,
    TRAINING,
    VALIDATION,
    WEIGHTS,
    find_channel,
)
from container.classifier.environment import JOB_NAME_VARIABLE
from container.classifier.errors import UserError
from container.classifier.split_names import split_name

# SageMaker keeps 1,024 characters, including its own prefix.
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
    """The hosts of the job."""

    current: str
    names: tuple[str, ...]
    network_interface: str

    @property
    def rank(self) -> int:
        """This host's index in the sorted list, not the number in its name (algo-10 < algo-2)."""
        return self.names.index(self.current)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingEnvironment:
    """The paths of a training job below its base folder, and the settings in its files."""

    base_dir: Path

    @property
    def model_dir(self) -> Path:
        """The folder that SageMaker packs as model.tar.gz."""
        return self.base_dir / "model"

    @property
    def output_data_dir(self) -> Path:
        """The folder that SageMaker packs as output.tar.gz."""
        return self.base_dir / "output" / "data"

    @property
    def output_dir(self) -> Path:
        """The folder of debugger and profiler records."""
        return self.base_dir / "output"

    def config_path(self, name: str) -> Path:
        """Return the path of one of SageMaker's configuration files, which may be missing."""
        return self.base_dir / "input" / "config" / name

    @property
    def checkpoint_dir(self) -> Path:
        """The folder that SageMaker synchronizes with S3 while the job runs."""
        config = self._config("checkpointconfig.json")
        path = config.get("LocalPath") if isinstance(config, dict) else None
        directory = Path(path) if isinstance(path, str) else self.base_dir / "checkpoints"
        # All trials of a tuning job have the same S3 prefix, so each needs a separate folder.
        if "_tuning_objective_metric" in self.hyperparameters():
            directory /= os.environ.get(JOB_NAME_VARIABLE, "trial")
        return directory

    def hyperparameters(self) -> Mapping[str, object]:
        """Return the content of hyperparameters.json.

        Raises:
            UserError: the file is missing or is not a JSON object.
        """
        config = self._object("hyperparameters.json")
        if config is None:
            raise UserError(
                f"no {self.config_path('hyperparameters.json')}: SageMaker writes it for every "
                "job; outside of SageMaker, local_test/train_local.sh does"
            )
        return config

    def channels(self) -> Channels:
        """Find the input folders of the channels in inputdataconfig.json.

        Raises:
            UserError: there is no training channel, a folder is missing, or Pipe mode is used.
        """
        config = self._object("inputdataconfig.json") or {}
        for name, channel in config.items():
            mode = channel.get("TrainingInputMode") if isinstance(channel, dict) else None
            if mode == "Pipe":
                raise UserError(
                    f"channel {name!r} uses Pipe mode, which has no image files: "
                    "set its input_mode to 'File' or 'FastFile'"
                )
        return self._choose(set(config))

    def hosts(self) -> Hosts:
        """Return the hosts in resourceconfig.json, or this machine alone if there is no such file.

        Raises:
            UserError: the hosts are not a list of names, or lack the current host.
        """
        config = self._config("resourceconfig.json")
        if not isinstance(config, dict) or "hosts" not in config:
            return Hosts(current="localhost", names=("localhost",), network_interface="lo")
        hosts = config["hosts"]
        if not (isinstance(hosts, list) and all(isinstance(host, str) for host in hosts)):
            raise UserError(f"resourceconfig.json: hosts must be a list of names, got {hosts!r}")
        names = tuple(sorted(hosts))
        current = str(config.get("current_host"))
        if current not in names:
            raise UserError(f"resourceconfig.json: current_host {current!r} is not one of {names}")
        interface = str(config.get("network_interface_name") or "eth0")
        return Hosts(current=current, names=names, network_interface=interface)

    def write_failure(self, text: str, *, keep_existing: bool = False) -> None:
        """Write the failure reason that SageMaker shows."""
        self._failure_path.parent.mkdir(parents=True, exist_ok=True)
        # The text may contain a file name that is not UTF-8.
        data = text[:MAX_FAILURE_CHARACTERS].encode(errors="backslashreplace")
        mode = "xb" if keep_existing else "wb"
        with contextlib.suppress(FileExistsError), self._failure_path.open(mode) as file:
            file.write(data)

    def clear_failure(self) -> None:
        """Delete the failure reason of an earlier run in the same folder."""
        self._failure_path.unlink(missing_ok=True)

    @property
    def _failure_path(self) -> Path:
        return self.base_dir / "output" / "failure"

    def _choose(self, names: set[str]) -> Channels:
        found = {
            channel: find_channel(channel, names) or _named_like(channel, names)
            for channel in CHANNEL_NAMES
        }
        others = names.difference(*CHANNEL_NAMES.values(), filter(None, found.values()))
        images = sorted(names.difference(CHANNEL_NAMES[WEIGHTS]))
        if found[TRAINING] is None and others and len(images) == 1:
            # A single channel of images is the training channel, under any name.
            found[TRAINING] = images[0]
        if found[TRAINING] is None:
            raise UserError(
                f"no channel called 'training'; found: {', '.join(images) or 'none'}. "
                "Pass it to fit() as {'training': 's3://...'}"
            )
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
            raise UserError(f"channel {name!r} has no folder {path}")
        return path

    def _object(self, name: str) -> Mapping[str, object] | None:
        config = self._config(name)
        if config is None or isinstance(config, dict):
            return config
        raise UserError(f"{name} must hold an object, got {type(config).__name__}")

    def _config(self, name: str) -> object:
        path = self.config_path(name)
        try:
            # PowerShell writes UTF-16, which `json` recognizes.
            document: object = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON: {error}") from None
        return document


def _named_like(channel: str, names: set[str]) -> str | None:
    """Return the only one of the names that stands for a channel's split, as Train and eval do."""
    role = SPLITS[0] if channel == TRAINING else channel
    similar = [
        name
        for name in names
        if (found := split_name(name)) and found.is_exact and found.role == role
    ]
    return similar[0] if len(similar) == 1 else None
