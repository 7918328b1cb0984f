"""SageMaker's side of a training job, read and written."""

from pathlib import Path

import pytest

from container.classifier.base_directory import base_dir
from container.classifier.errors import UserError
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


def test_the_base_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
    ],
)
def test_channels_go_by_the_names_that_people_use(
    environment: TrainingEnvironment, names: tuple[str, ...], expected: tuple[str | None, ...]
) -> None:
    with_channels(environment, *names)

    assert chosen(environment.channels()) == expected


@pytest.mark.parametrize("mode", ["File", "FastFile"])
def test_fast_file_mode_is_file_mode(environment: TrainingEnvironment, mode: str) -> None:
    with_channels(environment, "training", mode=mode)

    assert environment.channels().training.name == "training"


def test_channels_that_nobody_asked_for_are_named(environment: TrainingEnvironment) -> None:
    with_channels(environment, "training", "testing", "extra")

    assert environment.channels().unused == ("extra", "testing")


@pytest.mark.parametrize("name", ["validation", "test"])
def test_images_held_out_are_never_trained_on(environment: TrainingEnvironment, name: str) -> None:
    with_channels(environment, name)

    with pytest.raises(UserError, match=f"no channel called 'training'; found: {name}"):
        environment.channels()


def test_several_channels_of_other_names_are_refused(environment: TrainingEnvironment) -> None:
    with_channels(environment, "cats", "dogs", "weights")

    with pytest.raises(UserError, match="no channel called 'training'; found: cats, dogs"):
        environment.channels()


def test_hosts_rank_by_the_order_of_their_names_as_text(environment: TrainingEnvironment) -> None:
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


def test_without_resourceconfig_there_is_this_machine_alone(
    environment: TrainingEnvironment,
) -> None:
    assert environment.hosts() == Hosts(
        current="localhost", names=("localhost",), network_interface="lo"
    )


def test_a_current_host_that_is_no_host_is_refused(environment: TrainingEnvironment) -> None:
    write_json(environment.base_dir, "resourceconfig.json", {"current_host": "b", "hosts": ["a"]})

    with pytest.raises(UserError, match="current_host 'b' is not one of"):
        environment.hosts()


def test_checkpoints_lie_where_checkpointconfig_says(environment: TrainingEnvironment) -> None:
    write_json(environment.base_dir, "hyperparameters.json", {})
    assert environment.checkpoint_dir == environment.base_dir / "checkpoints"
    write_json(environment.base_dir, "checkpointconfig.json", {"LocalPath": "/elsewhere"})
    assert environment.checkpoint_dir == Path("/elsewhere")


def test_each_trial_of_a_tuning_job_has_checkpoints_of_its_own(
    environment: TrainingEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    hyperparameters = {"_tuning_objective_metric": "val_accuracy"}
    write_json(environment.base_dir, "hyperparameters.json", hyperparameters)
    monkeypatch.setenv("TRAINING_JOB_NAME", "trial-7")

    assert environment.checkpoint_dir == environment.base_dir / "checkpoints" / "trial-7"


def test_a_failure_is_cut_to_what_sagemaker_shows(environment: TrainingEnvironment) -> None:
    environment.write_failure("ü" * 5000)

    path = environment.base_dir / "output" / "failure"
    assert path.read_text(encoding="utf-8") == "ü" * 950


def test_a_failure_is_forgotten_and_forgetting_none_is_fine(
    environment: TrainingEnvironment,
) -> None:
    environment.forget_failure()
    environment.write_failure("an earlier run's")
    environment.forget_failure()

    assert not (environment.base_dir / "output" / "failure").exists()


def test_validation_alone_is_not_trained_on(environment: TrainingEnvironment) -> None:
    with_channels(environment, "validation")

    with pytest.raises(UserError, match="no channel called 'training'; found: validation"):
        environment.channels()


@pytest.mark.parametrize("hosts", [None, "algo-1", [1]])
def test_hosts_that_are_no_list_of_names_are_refused(
    environment: TrainingEnvironment, hosts: object
) -> None:
    config = {"current_host": "algo-1", "hosts": hosts}
    write_json(environment.base_dir, "resourceconfig.json", config)

    with pytest.raises(UserError, match="hosts must be a list of names"):
        environment.hosts()


def test_json_without_end_is_refused(environment: TrainingEnvironment) -> None:
    write_json(environment.base_dir, "hyperparameters.json", {})
    path = environment.base_dir / "input/config/hyperparameters.json"
    path.write_text(100_000 * "[", encoding="utf-8")

    with pytest.raises(UserError, match="is not JSON"):
        environment.hyperparameters()


def test_a_second_training_in_the_same_folder_is_refused(environment: TrainingEnvironment) -> None:
    with (
        environment.locked(),
        pytest.raises(UserError, match="another training is running"),
        TrainingEnvironment(base_dir=environment.base_dir).locked(),
    ):
        pass
    with environment.locked():
        pass
