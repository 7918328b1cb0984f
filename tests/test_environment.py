"""SageMaker's files of a training job."""

from pathlib import Path

import pytest

from container.classifier.environment import base_dir
from container.classifier.errors import UserError
from container.classifier.locks import locked
from container.training.sagemaker.environment import Channels, Hosts, TrainingEnvironment
from tests.opt_ml import write_json


@pytest.fixture
def environment(tmp_path: Path) -> TrainingEnvironment:
    return TrainingEnvironment(base_dir=tmp_path)


def with_channels(environment: TrainingEnvironment, *names: str, mode: str = "File") -> None:
    channel = {"TrainingInputMode": mode, "RecordWrapperType": "None"}
    write_json(environment.base_dir, "inputdataconfig.json", dict.fromkeys(names, channel))
    for name in names:
        (environment.base_dir / "input" / "data" / name).mkdir(parents=True)


def chosen(channels: Channels) -> tuple[str | None, ...]:
    """Return the folders for training, validation, test and weights."""
    paths = (channels.training, channels.validation, channels.test, channels.weights)
    return tuple(path.name if path else None for path in paths)


def test_base_directory_can_be_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SAGEMAKER_BASE_DIR", raising=False)
    assert base_dir() == Path("/opt/ml")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    assert base_dir() == tmp_path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("training",), ("training", None, None, None)),
        (("train", "validation"), ("train", "validation", None, None)),
        (("training", "val", "model"), ("training", "val", None, "model")),
        (("fingers",), ("fingers", None, None, None)),
        (("fingers", "weights"), ("fingers", None, None, "weights")),
        (("test", "train", "valid"), ("train", "valid", "test", None)),
        (("Train", "eval", "test_images"), ("Train", "eval", "test_images", None)),
        (("training", "train_lst", "Test", "testing"), ("training", None, None, None)),
    ],
)
def test_channels_are_recognized_by_common_names(
    environment: TrainingEnvironment, names: tuple[str, ...], expected: tuple[str | None, ...]
) -> None:
    with_channels(environment, *names)

    assert chosen(environment.channels()) == expected


@pytest.mark.parametrize("mode", ["File", "FastFile"])
def test_fast_file_mode_is_file_mode(environment: TrainingEnvironment, mode: str) -> None:
    with_channels(environment, "training", mode=mode)

    assert environment.channels().training.name == "training"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_that_windows_programs_write_are_read(
    environment: TrainingEnvironment, encoding: str
) -> None:
    path = environment.config_path("hyperparameters.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"epochs": "3"}', encoding)

    assert environment.hyperparameters() == {"epochs": "3"}


def test_unused_channels_are_returned(environment: TrainingEnvironment) -> None:
    with_channels(environment, "training", "more", "extra")

    assert environment.channels().unused == ("extra", "more")


@pytest.mark.parametrize("name", ["validation", "test", "eval"])
def test_held_out_images_are_never_trained_on(environment: TrainingEnvironment, name: str) -> None:
    with_channels(environment, name)

    with pytest.raises(UserError, match=f"no channel called 'training'; found: {name}"):
        environment.channels()


def test_several_channels_of_other_names_are_rejected(environment: TrainingEnvironment) -> None:
    with_channels(environment, "cats", "dogs", "weights")

    with pytest.raises(UserError, match="no channel called 'training'; found: cats, dogs"):
        environment.channels()


def test_host_rank_is_the_index_of_the_sorted_name(environment: TrainingEnvironment) -> None:
    resources = {
        "current_host": "algo-2",
        "hosts": ["algo-1", "algo-2", "algo-10"],
        "topology": None,
    }
    write_json(environment.base_dir, "resourceconfig.json", resources)

    hosts = environment.hosts()

    assert hosts.names == ("algo-1", "algo-10", "algo-2")
    assert hosts.rank == 2
    assert hosts.network_interface == "eth0"


def test_without_resourceconfig_this_machine_is_the_only_host(
    environment: TrainingEnvironment,
) -> None:
    assert environment.hosts() == Hosts(
        current="localhost", names=("localhost",), network_interface="lo"
    )


def test_unknown_current_host_is_rejected(environment: TrainingEnvironment) -> None:
    write_json(environment.base_dir, "resourceconfig.json", {"current_host": "b", "hosts": ["a"]})

    with pytest.raises(UserError, match="current_host 'b' is not one of"):
        environment.hosts()


def test_checkpointconfig_sets_the_folder_of_checkpoints(environment: TrainingEnvironment) -> None:
    write_json(environment.base_dir, "hyperparameters.json", {})
    assert environment.checkpoint_dir == environment.base_dir / "checkpoints"
    write_json(environment.base_dir, "checkpointconfig.json", {"LocalPath": "/elsewhere"})
    assert environment.checkpoint_dir == Path("/elsewhere")


def test_trials_of_a_tuning_job_have_separate_checkpoints(
    environment: TrainingEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    hyperparameters = {"_tuning_objective_metric": "val_accuracy"}
    write_json(environment.base_dir, "hyperparameters.json", hyperparameters)
    monkeypatch.setenv("TRAINING_JOB_NAME", "trial-7")

    assert environment.checkpoint_dir == environment.base_dir / "checkpoints" / "trial-7"


def test_failure_reason_is_truncated_for_sagemaker(environment: TrainingEnvironment) -> None:
    environment.write_failure("ü" * 5000)

    path = environment.base_dir / "output" / "failure"
    assert path.read_text(encoding="utf-8") == "ü" * 950


def test_failure_reason_is_cleared_if_there_is_one(
    environment: TrainingEnvironment,
) -> None:
    environment.clear_failure()
    environment.write_failure("an earlier run's")
    environment.clear_failure()

    assert not (environment.base_dir / "output" / "failure").exists()


def test_single_validation_channel_is_not_trained_on(environment: TrainingEnvironment) -> None:
    with_channels(environment, "validation")

    with pytest.raises(UserError, match="no channel called 'training'; found: validation"):
        environment.channels()


@pytest.mark.parametrize("hosts", [None, "algo-1", [1]])
def test_hosts_must_be_a_list_of_names(environment: TrainingEnvironment, hosts: object) -> None:
    config = {"current_host": "algo-1", "hosts": hosts}
    write_json(environment.base_dir, "resourceconfig.json", config)

    with pytest.raises(UserError, match="hosts must be a list of names"):
        environment.hosts()


def test_deeply_nested_json_is_rejected(environment: TrainingEnvironment) -> None:
    write_json(environment.base_dir, "hyperparameters.json", {})
    path = environment.base_dir / "input/config/hyperparameters.json"
    path.write_text(100_000 * "[", encoding="utf-8")

    with pytest.raises(UserError, match="is not JSON"):
        environment.hyperparameters()


def test_second_training_in_the_same_folder_is_rejected(environment: TrainingEnvironment) -> None:
    with (
        locked(environment.base_dir),
        pytest.raises(UserError, match="another training is running"),
        locked(environment.base_dir),
    ):
        pass
    with locked(environment.base_dir):
        pass
