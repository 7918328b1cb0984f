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
    """A program that is started in Python's place; a test writes it."""
    path = tmp_path / "program"
    path.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def test_every_process_has_its_place_and_its_share_of_the_cores(
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
    said = [(environment.base_dir / str(rank)).read_text() for rank in range(3)]
    assert said == [f"{rank}/3 on 2 of port 3333\n" for rank in range(3)]


def test_threads_that_were_asked_for_are_left(
    environment: TrainingEnvironment, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    program.write_text('#!/bin/sh\ntest "$OMP_NUM_THREADS" = 5\n')

    assert supervisor.supervise(environment, StopRequest(), 2) == 0


def test_when_one_process_fails_without_a_word_the_others_are_ended_and_it_is_named(
    environment: TrainingEnvironment, program: Path
) -> None:
    wait = "import signal; signal.sigwait({signal.SIGTERM})"
    program.write_text(f'#!/bin/sh\ntest $LOCAL_RANK = 0 || exit 3\nexec python3 -c "{wait}"\n')

    assert supervisor.supervise(environment, StopRequest(), 2) == 1
    assert failure(environment.base_dir) == (
        "training process 2 of 2 ended with exit code 3: the log says why"
    )


def test_a_process_that_does_not_want_to_end_is_killed(
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


def test_a_process_that_says_why_it_fails_has_the_word(
    environment: TrainingEnvironment, program: Path
) -> None:
    (environment.base_dir / "output").mkdir()
    said = environment.base_dir / "output" / "failure"
    program.write_text(f"#!/bin/sh\nprintf 'no space left' >{said}\nexit 1\n")

    assert supervisor.supervise(environment, StopRequest(), 2) == 1
    assert failure(environment.base_dir) == "no space left"


def test_a_process_that_is_killed_is_the_reason_not_what_its_loss_did_to_another(
    environment: TrainingEnvironment, program: Path
) -> None:
    (environment.base_dir / "output").mkdir()
    said = environment.base_dir / "output" / "failure"
    program.write_text(
        "#!/bin/sh\ntrap '' TERM\ntest $LOCAL_RANK = 0 || kill -KILL $$\n"
        f"sleep 1\nprintf 'the connection was lost' >{said}\nexit 1\n"
    )

    assert supervisor.supervise(environment, StopRequest(), 2) == 1
    assert failure(environment.base_dir) == (
        "training process 2 of 2 was ended by SIGKILL (out of memory?)"
    )


def test_a_stop_reaches_processes_that_do_not_listen_yet(
    environment: TrainingEnvironment, program: Path
) -> None:
    # Python starts without a handler; the signal waits for it all the same.
    listen = "import signal, time; time.sleep(1); signal.sigwait({signal.SIGTERM})"
    program.write_text(f'#!/bin/sh\nexec python3 -c "{listen}"\n')
    stop = StopRequest(requested=True)

    assert supervisor.supervise(environment, stop, 2) == 0


@pytest.mark.parametrize("wanted", ["two", "0", "-1", "1.5", ""])
def test_an_impossible_number_of_processes_is_refused(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_CLASSIFIER_PROCESSES", wanted)

    with pytest.raises(UserError, match="must be a whole number from 1 on, got '"):
        supervisor.count_processes()


def test_a_mistake_in_a_hyperparameter_is_the_reason_whichever_process_finds_it(
    tmp_path: Path,
) -> None:
    base_dir = make_job(tmp_path, epochs="three")

    code, output = train(base_dir, SAGEMAKER_CLASSIFIER_PROCESSES="2")

    assert code == 1
    assert failure(base_dir) == "epochs must be a whole number, got 'three'"
    assert "Traceback" not in output
