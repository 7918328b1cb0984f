"""The processes of one host: counted, started, watched and ended together."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from container.training.sagemaker import supervisor
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import SIGNALS, StopRequest
from tests.opt_ml import failure, make_job, train


@pytest.fixture
def environment(tmp_path: Path) -> TrainingEnvironment:
    return TrainingEnvironment(base_dir=tmp_path)


@pytest.fixture(autouse=True)
def _signals_kept() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a program that runs instead of Python; a test writes it."""
    path = tmp_path / "program"
    path.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def test_processes_have_their_rank_and_share_of_the_cpus(
    environment: TrainingEnvironment, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(7)))
    program.write_text(
        '#!/bin/sh\necho "$LOCAL_RANK/$LOCAL_WORLD_SIZE on $OMP_NUM_THREADS of port $MASTER_PORT"'
        f' >{environment.base_dir}/$LOCAL_RANK; test "$*" = "-m container.training train"\n'
    )
    monkeypatch.setenv("MASTER_PORT", "3333")

    assert supervisor.supervise(environment, StopRequest(), 3) == 0
    outputs = [(environment.base_dir / str(rank)).read_text() for rank in range(3)]
    assert outputs == [f"{rank}/3 on 2 of port 3333\n" for rank in range(3)]


def test_number_of_threads_in_the_environment_is_kept(
    environment: TrainingEnvironment, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    program.write_text('#!/bin/sh\ntest "$OMP_NUM_THREADS" = 5\n')

    assert supervisor.supervise(environment, StopRequest(), 2) == 0


def test_failed_process_without_a_reason_is_named(
    environment: TrainingEnvironment, program: Path
) -> None:
    wait = "import signal; signal.sigwait({signal.SIGTERM})"
    program.write_text(f'#!/bin/sh\ntest $LOCAL_RANK = 0 || exit 3\nexec python3 -c "{wait}"\n')

    assert supervisor.supervise(environment, StopRequest(), 2) == 1
    assert failure(environment.base_dir) == (
        "training process 2 of 2 exited with code 3: see the log"
    )


def test_process_that_ignores_sigterm_is_killed(
    environment: TrainingEnvironment, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.3)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    wait = f"{deaf}open('{environment.base_dir}/deaf', 'w').close(); signal.pause()"
    program.write_text(
        f'#!/bin/sh\nif test $LOCAL_RANK = 0; then exec python3 -c "{wait}"; fi\n'
        f"until test -e {environment.base_dir}/deaf; do sleep 0.1; done\nexit 1\n"
    )

    assert supervisor.supervise(environment, StopRequest(), 2) == 1


def test_failure_reason_of_a_process_is_kept(
    environment: TrainingEnvironment, program: Path
) -> None:
    (environment.base_dir / "output").mkdir()
    path = environment.base_dir / "output" / "failure"
    program.write_text(f"#!/bin/sh\nprintf 'no space left' >{path}\nexit 1\n")

    assert supervisor.supervise(environment, StopRequest(), 2) == 1
    assert failure(environment.base_dir) == "no space left"


def test_killed_process_is_the_reason_not_its_consequences(
    environment: TrainingEnvironment, program: Path
) -> None:
    (environment.base_dir / "output").mkdir()
    path = environment.base_dir / "output" / "failure"
    program.write_text(
        "#!/bin/sh\ntrap '' TERM\ntest $LOCAL_RANK = 0 || kill -KILL $$\n"
        f"sleep 1\nprintf 'the connection was lost' >{path}\nexit 1\n"
    )

    assert supervisor.supervise(environment, StopRequest(), 2) == 1
    assert failure(environment.base_dir) == (
        "training process 2 of 2 was killed by SIGKILL (out of memory?)"
    )


def test_stop_request_reaches_starting_processes(
    environment: TrainingEnvironment, program: Path
) -> None:
    # Python starts without a handler; the blocked signal is pending until then.
    listen = "import signal, time; time.sleep(1); signal.sigwait({signal.SIGTERM})"
    program.write_text(f'#!/bin/sh\nexec python3 -c "{listen}"\n')
    stop = StopRequest(requested=True)

    assert supervisor.supervise(environment, stop, 2) == 0


@pytest.mark.parametrize("wanted", ["two", "0", "-1", "1.5", ""])
def test_invalid_number_of_processes_is_rejected(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_CLASSIFIER_PROCESSES", wanted)

    with pytest.raises(UserError, match="must be a whole number from 1 on, got '"):
        supervisor.count_processes()


def test_invalid_hyperparameter_is_the_reason_in_several_processes(
    tmp_path: Path,
) -> None:
    base_dir = make_job(tmp_path, epochs="three")

    code, output = train(base_dir, SAGEMAKER_CLASSIFIER_PROCESSES="2")

    assert code == 1
    assert failure(base_dir) == "epochs must be a whole number, got 'three'"
    assert "Traceback" not in output
