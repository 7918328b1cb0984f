"""Training with several processes: equal results, and clear errors when one is lost."""

import os
import re
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from container.classifier.artifact import Artifact
from container.classifier.errors import UserError
from container.training.fitting import cluster
from container.training.fitting.cluster import joined
from container.training.sagemaker.environment import Hosts
from container.training.sagemaker.stop import Stopped, StopRequest
from tests.opt_ml import (
    HOSTS,
    failure,
    make_hosts,
    make_job,
    metrics,
    train,
    training,
    training_together,
    wait_for,
)
from tests.processes import children, free_port

TWO_PROCESSES = {"SAGEMAKER_CLASSIFIER_PROCESSES": "2"}

# One step per epoch, so that the log has the loss of every step. Two processes have unequal shares
# of 21 images. The learning rate is low, because unstable training amplifies the rounding of sums
# in another order. tests/test_batch_norm.py compares in float64.
CURVE = {
    "network": "squeezenet1_1",
    "pretrained": "false",
    "image_size": "32",
    "epochs": "25",
    "batch_size": "64",
    "validation_fraction": "0.3",
    "gradient_accumulation_steps": "2",
    "optimizer": "sgd",
    "learning_rate": "0.0005",
    "label_smoothing": "0.2",
    "checkpoint_interval_seconds": "1000",
}

LONG = {"epochs": "10000", "checkpoint_interval_seconds": "1000"}


def losses(base_dir: Path) -> list[float]:
    history = metrics(base_dir)["history"]
    assert isinstance(history, list)
    return [epoch["train_loss"] for epoch in history]


@pytest.mark.slow
def test_the_loss_curve_does_not_depend_on_the_number_of_processes(
    tmp_path: Path,
) -> None:
    alone = make_job(tmp_path / "alone", **CURVE)
    hosts = make_hosts(tmp_path / "hosts", **CURVE)

    finished = train(alone)
    codes, outputs = train_uneven(hosts)

    assert (finished.code, *codes) == (0, 0, 0), (finished.output, outputs)
    expected = losses(alone)
    assert len(expected) == 25
    assert losses(hosts[1]) == pytest.approx(expected, rel=0, abs=1e-5)


def train_uneven(hosts: Sequence[Path]) -> tuple[list[int], list[str]]:
    """Train on two hosts with one process and two; return their exit codes and logs."""
    port = str(free_port())
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                training(base_dir, MASTER_PORT=port, SAGEMAKER_CLASSIFIER_PROCESSES=count)
            )
            for base_dir, count in zip(hosts, "12", strict=True)
        ]
        outputs = [process.communicate()[0] for process in processes]
    return [process.returncode for process in processes], outputs


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[str]]:
    """Folders and logs of two hosts with one process and two."""
    hosts = make_hosts(
        tmp_path_factory.mktemp("uneven"),
        epochs="3",
        precision="bfloat16",
        # Too few losses to be significant, which is an issue.
        debug_rules='{"RuleParameters": {"rule_to_invoke": "LossNotDecreasing", "num_steps": "1"}}',
        # Batches of 8 in more parts than the process with three images can make.
        gradient_accumulation_steps="3",
    )
    codes, outputs = train_uneven(hosts)
    assert codes == [0, 0], outputs
    return hosts, outputs


def test_hosts_may_have_different_numbers_of_processes(
    uneven: tuple[list[Path], list[str]],
) -> None:
    (second, first), outputs = uneven

    assert "processes=3" in outputs[1]
    assert Artifact.read(first / "model")
    assert not (second / "model").exists()


def test_only_one_process_of_a_host_logs(uneven: tuple[list[Path], list[str]]) -> None:
    _, outputs = uneven

    assert [output.count("classes=3") for output in outputs] == [1, 1]
    assert [len(re.findall(r"^epoch=\d", output, re.MULTILINE)) for output in outputs] == [0, 3]
    assert [output.count("debugger: LossNotDecreasing") for output in outputs] == [0, 1]


def test_a_stop_reaches_all_processes_and_leaves_a_model(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path, **LONG)

    with training(base_dir, **TWO_PROCESSES) as process:
        wait_for(process, r"^epoch=2 ")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()

    assert process.returncode == 0, output
    assert "stopped_at_epoch=" in output
    assert list((base_dir / "checkpoints").glob("*.pt"))
    assert Artifact.read(base_dir / "model").manifest.metrics


# On one machine the connection's addresses are not those of the host names.
@pytest.mark.parametrize("lost", [0, 1], ids=["another", "the first"])
def test_the_loss_of_a_host_ends_the_job_on_the_other(lost: int, tmp_path: Path) -> None:
    hosts = make_hosts(tmp_path, **LONG)

    with training_together(hosts) as processes:
        wait_for(processes[1], r"^epoch=2 ")
        processes[lost].kill()
        output, _ = processes[1 - lost].communicate()

    assert processes[1 - lost].returncode == 1
    assert re.fullmatch(
        r"the connection to another process of the job was lost \([^()\n]+\): see its log",
        failure(hosts[1 - lost]),
    )
    assert "Traceback" not in output


def test_the_message_names_the_lost_host() -> None:
    hosts = Hosts(current="algo-1", names=("algo-1", "localhost"), network_interface="eth0")
    error = "[/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1234. Check."

    assert cluster.describe_loss(error, cluster.host_addresses(hosts)) == (
        "the connection to host localhost was lost (Connection closed by peer [127.0.0.1]:1234): "
        "see its log"
    )


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_other_processes_of_its_host(lost: int, tmp_path: Path) -> None:
    base_dir = make_job(tmp_path, **LONG)

    with training(base_dir, **TWO_PROCESSES) as process:
        wait_for(process, r"^epoch=2 ")
        os.kill(children(process.pid)[lost], signal.SIGKILL)
        output, _ = process.communicate()

    assert process.returncode == 1
    assert failure(base_dir) == (
        f"training process {lost + 1} of 2 was killed by SIGKILL (out of memory?)"
    )
    assert "Traceback" not in output


def test_processes_end_with_their_supervisor(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path, **LONG)

    with training(base_dir, **TWO_PROCESSES) as process:
        wait_for(process, r"^epoch=2 ")
        process.kill()
        # Returns when the last process has closed the pipe.
        process.communicate()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of a process that is alone on its host and has a short timeout."""
    port = free_port()
    variables = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_PORT": str(port)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cluster, "RENDEZVOUS_TIMEOUT", timedelta(seconds=1))
    return port


@pytest.mark.usefixtures("port")
@pytest.mark.parametrize(
    ("current", "sentence"),
    [
        (
            "127.0.0.10",
            r"hosts of resourceconfig\.json have not started within 0:00:01: 127\.0\.0\.2",
        ),
        ("127.0.0.2", r"host 127\.0\.0\.10 of resourceconfig\.json has not started within 0:00:01"),
    ],
    ids=["another", "the first"],
)
def test_a_host_that_does_not_start_is_named(current: str, sentence: str) -> None:
    hosts = Hosts(current=current, names=tuple(sorted(HOSTS)), network_interface="lo")

    with pytest.raises(UserError, match=sentence), joined(hosts, StopRequest()):
        pass


@pytest.mark.usefixtures("port")
@pytest.mark.parametrize(("interface", "expected"), [("lo", "lo"), ("ethwe", None)])
def test_an_interface_that_does_not_exist_is_not_used(
    interface: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    hosts = Hosts(current=HOSTS[0], names=tuple(sorted(HOSTS)), network_interface=interface)

    with pytest.raises(Stopped), joined(hosts, StopRequest(requested=True)):
        pass

    assert os.environ.get("GLOO_SOCKET_IFNAME") == expected


@pytest.mark.usefixtures("port")
@pytest.mark.parametrize("current", HOSTS)
def test_a_stop_ends_the_wait_for_a_host(current: str) -> None:
    hosts = Hosts(current=current, names=tuple(sorted(HOSTS)), network_interface="lo")
    stop = StopRequest(requested=True)

    with pytest.raises(Stopped), joined(hosts, stop):
        pass
