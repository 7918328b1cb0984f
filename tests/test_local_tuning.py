"""Local tuning jobs: real trials, continued searches, the page, the model."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import optuna
import pytest

from container.classifier.environment import cache_dir
from container.classifier.errors import UserError
from container.classifier.locks import locked
from image_classifier.cli import main
from image_classifier.local import job_inputs, jobs, trial, tuning_page
from image_classifier.local import tuning as local_tuning
from image_classifier.local.programs import ForkedPrograms, Programs, TrialFailedError
from image_classifier.local.tuning_page import best_trial
from image_classifier.platform import training
from image_classifier.platform.sandbox.http_call import call
from image_classifier.sagemaker import training_requests
from image_classifier.settings import metric_definitions as metrics
from image_classifier.settings.settings_file import SettingsFile
from tests.accessibility import check_accessibility
from tests.opt_ml import HYPERPARAMETERS, write_images
from tests.processes import free_port
from tests.report_pages import check_report
from tests.settings_files import read, write

NAME = 'name = "squares"\n'

SETTINGS = (
    '\n[data]\nlocal = "images"\nchannels = ["training"]\n[hyperparameters]\n'
    + "".join(f"{key} = {json.dumps(value)}\n" for key, value in HYPERPARAMETERS.items())
    + """
[tuning]
objective = "val_loss"
jobs = 2

[tuning.ranges]
learning_rate = { min = 0.001, max = 0.1, scaling = "Logarithmic" }
batch_size = { values = [4, 8] }
"""
)


def settings(directory: Path, text: str = SETTINGS) -> SettingsFile:
    return read(directory, text, NAME)


def test_second_training_is_rejected_before_it_removes_files(tmp_path: Path) -> None:
    write_images(tmp_path / "images/training", per_class=2)
    base_dir, model = tmp_path / jobs.FOLDER, tmp_path / "model.tar.gz"
    base_dir.mkdir()
    model.touch()

    with locked(base_dir), pytest.raises(UserError, match="another training is running"):
        jobs.train(settings(tmp_path), tmp_path, from_tuning=False)

    assert model.is_file()


def test_training_that_fails_or_is_stopped_keeps_the_earlier_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images/training", per_class=2)
    file, job = settings(tmp_path), tmp_path / "job"

    def train(outcome: str) -> None:
        def run(base_dir: Path, _program: object, on_stop: Callable[[], None], **_: object) -> int:
            metrics = {"calibration": None if outcome == "stopped" else {"temperature": 1}}
            (base_dir / "output/data/metrics.json").write_text(json.dumps(metrics))
            (base_dir / "model/manifest.json").write_text(outcome)
            if outcome == "stopped":
                on_stop()
            if outcome == "failed":
                (base_dir / "output/failure").write_text("out of luck")
            return int(outcome == "failed")

        monkeypatch.setattr(training, "train", run)
        jobs.train(file, job, from_tuning=False)

    train("first")
    train("second")
    with pytest.raises(KeyboardInterrupt):
        train("stopped")
    assert packed_models(job) == {"model.tar.gz": "stopped", "previous/model.tar.gz": "second"}
    for _ in range(2):
        with pytest.raises(UserError, match=r"the earlier model is .*/previous/model\.tar\.gz"):
            train("failed")
        assert packed_models(job) == {"previous/model.tar.gz": "second"}
    assert (job / "previous/output.tar.gz").is_file()
    # Like after SIGKILL.
    (job / "ml/output/failure").unlink()
    (job / "ml/model/manifest.json").unlink()
    with pytest.raises(UserError, match=r"`train --local` first; the earlier model is"):
        jobs.trained(job)


def test_results_of_other_images_are_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("images", "other"):
        write_images(tmp_path / name / "training", per_class=2)
    path, image = str(write(tmp_path, SETTINGS, NAME)), str(tmp_path / "x.png")
    folder = tmp_path / ".launcher/squares"
    jobs.require_same_data(settings(tmp_path), folder)
    job_inputs.prepare(folder / jobs.FOLDER, settings(tmp_path).local_channels(), {})
    # A training that has no results yet can be replaced.
    other = settings(tmp_path, SETTINGS.replace('"images"', '"other"'))
    jobs.require_same_data(other, folder)
    (folder / "model.tar.gz").touch()

    for verb, *more in (["tune"], ["deploy"], ["report"], ["predict", image]):
        assert main([verb, path, *more, "--local", "--set", "data.local=other"]) == 1
        assert capsys.readouterr().err == (
            f"image-classifier: {folder} has the results of a training on "
            f"{tmp_path}/images/training, and data.local is {tmp_path}/other: "
            f"`train --local` first, or change `name` in {path}\n"
        )
    # After a training that failed, `deploy --job` can serve the earlier model.
    (folder / "previous").mkdir()
    packed = (folder / "model.tar.gz").rename(folder / "previous/model.tar.gz")
    jobs.require_same_data(other, folder)
    packed.rename(folder / "model.tar.gz")
    # A channel can be a link.
    (link := tmp_path / "other" / "link").symlink_to(tmp_path / "images/training")
    jobs.require_same_data(other, folder)
    # The project can be moved.
    link.unlink()
    (tmp_path / "images").rename(tmp_path / "moved")
    jobs.require_same_data(other, folder)


def packed_models(job: Path) -> dict[str, str]:
    """Return the manifest of every packed model, by the path of the model."""
    found = {}
    for path in sorted(job.rglob("model.tar.gz")):
        with tarfile.open(path) as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest
            found[str(path.relative_to(job))] = manifest.read().decode()
    return found


@pytest.mark.slow
def test_search_continues_and_writes_a_page_and_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images" / "training")
    path = write(tmp_path, SETTINGS, NAME)
    folder = tmp_path / ".launcher/squares/tuning"

    assert main(["tune", str(path), "--local"]) == 0

    shown = capsys.readouterr().out
    assert "2 of 2 trials to go" in shown
    assert "continued_from=" in shown
    # The same search with more trials.
    write(tmp_path, SETTINGS.replace("jobs = 2", "jobs = 3"), NAME)
    assert main(["tune", str(path), "--local"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("1 of 3 trials to go")
    assert printed[-1] == str(folder / "model.tar.gz")
    chosen = json.loads((folder / "best.json").read_text())
    assert chosen["hyperparameters"].keys() == {"learning_rate", "batch_size"}
    with tarfile.open(folder / "model.tar.gz") as archive:
        assert {"manifest.json", "weights.safetensors", "model.onnx"} <= set(archive.getnames())
        manifest = archive.extractfile("manifest.json")
        assert manifest
        val_loss = json.load(manifest)["metrics"]["val_loss"]
    assert val_loss == pytest.approx(chosen["objective"], rel=1e-4)
    kept = [each.name for each in folder.iterdir() if each.is_dir()]
    assert kept == [f"trial-{chosen['trial']:03}"]
    # Trained once; the model was exported from the checkpoint.
    log = (folder / kept[0] / "training.log").read_text()
    assert log.count("\nepoch=1 ") == 1
    assert log.count("continued_from=") == 1
    assert " debug=off" in log
    page = (folder / "tuning.html").read_text()
    assert page.count("<tr class=") == 3
    check_report(page)
    check_accessibility(folder.resolve() / "tuning.html")


@pytest.mark.slow
def test_killed_search_kills_its_trials_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images" / "training")
    path = write(tmp_path, SETTINGS.replace("jobs = 2", "jobs = 1\nparallel = 1"), NAME)
    log = tmp_path / ".launcher/squares/tuning/trial-000/training.log"

    with subprocess.Popen(
        [sys.executable, "-m", "image_classifier", "tune", str(path), "--local"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        while not (log.is_file() and "classes=3" in log.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        # The output ends when no process can write to it.
        process.stdout.read()
    size = log.stat().st_size

    assert main(["tune", str(path), "--local"]) == 0

    assert "1 of 1 trials to go" in capsys.readouterr().out
    assert log.stat().st_size == size
    study = optuna.load_study(
        study_name="squares", storage=f"sqlite:///{log.parent.parent / 'study.db'}"
    )
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", "COMPLETE"]
    assert study.trials[1].params == study.trials[0].params


@pytest.mark.slow
def test_search_killed_before_the_export_exports_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images" / "training")
    write_images(tmp_path / "images" / "test", first=100)
    # The last log line with metrics.
    text = SETTINGS.replace('["training"]', '["training", "test"]').replace("val_loss", "test_loss")
    path = write(tmp_path, text.replace("jobs = 2", "jobs = 1\nparallel = 1"), NAME)
    folder = tmp_path / ".launcher/squares/tuning"
    with monkeypatch.context() as patch:
        patch.setattr(local_tuning, "finish", _interrupt)
        assert main(["tune", str(path), "--local"]) == 130
    assert capsys.readouterr().err == "image-classifier: stopped\n"
    assert not (folder / "trial-000/model/manifest.json").exists()

    assert main(["tune", str(path), "--local"]) == 0

    assert "0 of 1 trials to go" in capsys.readouterr().out
    assert (folder / "model.tar.gz").is_file()
    log = (folder / "trial-000/training.log").read_text()
    assert log.count("\nepoch=1 ") == 1
    # A packed model is not exported again.
    assert main(["tune", str(path), "--local"]) == 0
    assert (folder / "trial-000/training.log").read_text() == log


def test_best_trial_without_a_model_is_reported(tmp_path: Path) -> None:
    file = settings(tmp_path)
    assert file.settings.tuning
    study = local_tuning.open_study(tmp_path, file, file.settings.tuning)
    study.tell(study.ask(), 0.5)
    found = best_trial(study)
    assert found
    with ForkedPrograms(threads=1) as programs:
        with pytest.raises(UserError, match="trial-000, the best trial, does not exist"):
            local_tuning.finish(found, tmp_path, programs, print)
        # Without configuration or images.
        (tmp_path / "trial-000" / "output").mkdir(parents=True)

        with pytest.raises(UserError, match=r"no model of trial 0: .*; read .*training\.log"):
            local_tuning.finish(found, tmp_path, programs, print)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
# The server continues when its starter ends.
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_same_settings_train_and_serve_locally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images" / "training")
    path, port = str(write(tmp_path, SETTINGS, NAME)), str(free_port())
    image = tmp_path / "images" / "training" / "red" / "3.png"

    assert main(["train", path, "--local"]) == 0
    page = "endpoint.environment.SAGEMAKER_CLASSIFIER_PAGE=false"
    assert main(["deploy", path, "--local", "--port", port, "--set", page]) == 0
    assert "serving as a process\n" in capsys.readouterr().out
    assert call(("127.0.0.1", int(port)), "GET", "/", timeout=5).status == 404
    try:
        assert main(["delete", path, "--local", "--dry-run"]) == 0
        assert "would stop the server" in capsys.readouterr().out
        assert main(["predict", path, str(image), "--local", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["class_names"] == ["blue", "green", "red"]
    finally:
        assert main(["delete", path, "--local"]) == 0

    printed = capsys.readouterr()
    assert "the server is stopped" in printed.out
    assert "squares (models and reports)\n" in printed.err
    assert f"kept until you remove it: {cache_dir()} (decoded images of all" in printed.err
    assert main(["predict", path, str(image), "--local", "--port", port]) == 1
    assert "`deploy --local` first" in capsys.readouterr().err


def test_failed_training_reports_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(write(tmp_path, SETTINGS, NAME))

    assert main(["train", path, "--local"]) == 1
    assert "no folder" in capsys.readouterr().err
    (tmp_path / "images" / "training").mkdir(parents=True)
    assert main(["train", path, "--local", "--from-tuning", "best"]) == 1
    assert "`tune --local` first" in capsys.readouterr().err
    assert main(["deploy", path, "--local", "--port", str(free_port())]) == 1
    assert "no model in" in capsys.readouterr().err
    reasons = {path: f"{path} is not an archive (.tar.gz)", "none.tar": "none.tar does not exist"}
    for job, reason in reasons.items():
        assert main(["deploy", path, "--local", "--job", job]) == 1
        assert capsys.readouterr() == ("", f"image-classifier: {reason}\n")


def test_interrupted_trials_are_queued_again(tmp_path: Path) -> None:
    file = settings(tmp_path)
    tuning = file.settings.tuning
    assert tuning is not None
    study = local_tuning.open_study(tmp_path, file, tuning)
    interrupted = study.ask()
    chosen = interrupted.suggest_float("learning_rate", 0.001, 0.1, log=True)

    again = local_tuning.open_study(tmp_path, file, tuning)

    assert again.trials[0].state == optuna.trial.TrialState.FAIL
    assert again.ask().suggest_float("learning_rate", 0.001, 0.1, log=True) == chosen


def test_stopped_grid_search_tries_every_point_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = SETTINGS.replace("jobs = 2", 'parallel = 1\nstrategy = "Grid"').replace(
        'learning_rate = { min = 0.001, max = 0.1, scaling = "Logarithmic" }',
        "learning_rate = { values = [0.001, 0.01] }",
    )
    (tmp_path / "images" / "training").mkdir(parents=True)
    file = settings(tmp_path, grid)
    tried: list[tuple[str, str]] = []

    def run(*arguments: Any, programs: Programs[Any], **_: object) -> float:  # noqa: ANN401
        if len(tried) == 1 and not stopped:
            stopped.append(True)
            programs.stop()
            message = "stopped"
            raise TrialFailedError(message)
        tried.append((arguments[2]["learning_rate"], arguments[2]["batch_size"]))
        return float(len(tried))

    stopped: list[bool] = []
    monkeypatch.setattr(trial, "run", run)
    monkeypatch.setattr(local_tuning, "finish", lambda *_: None)

    with pytest.raises(KeyboardInterrupt, match="stopped; the next"):
        local_tuning.run(file, tmp_path / "out", print)
    assert len(tried) == 1
    local_tuning.run(file, tmp_path / "out", print)

    points = {(rate, size) for rate in ("0.001", "0.01") for size in ("4", "8")}
    assert len(tried) == 4
    assert set(tried) == points


def test_continued_random_search_draws_other_values(tmp_path: Path) -> None:
    text = SETTINGS.replace("jobs = 2", 'jobs = 2\nstrategy = "Random"')
    file = settings(tmp_path, text)
    assert file.settings.tuning

    def draw() -> float:
        assert file.settings.tuning
        study = local_tuning.open_study(tmp_path, file, file.settings.tuning)
        each = study.ask()
        value = each.suggest_float("learning_rate", 0.001, 0.1, log=True)
        study.tell(each, 1.0)
        return value

    assert draw() != draw()


LINES = """epoch=1 train_loss=3 val_loss=2
epoch=2 train_loss=1 val_loss=4
best_epoch=1 val_loss=2.5
test_loss=7
written
"""


class FakePrograms:
    """A program that only logs."""

    def __init__(self) -> None:
        self.read: list[str] = []

    @contextlib.contextmanager
    def lines(self, _base_dir: Path) -> Iterator[Iterator[str]]:
        def read_lines() -> Iterator[str]:
            for line in LINES.splitlines():
                self.read.append(line)
                yield line

        yield read_lines()


@pytest.mark.parametrize(
    ("objective", "more", "expected"),
    [
        ("val_loss", {}, (2.5, "best_epoch=1 val_loss=2.5")),
        ("train_loss", {}, (1, "best_epoch=1 val_loss=2.5")),
        ("test_loss", {}, (7, "test_loss=7")),
        ("val_loss", {"min_accuracy": "0.5"}, (2.5, "written")),
    ],
)
def test_trial_ends_when_its_objective_is_final(
    tmp_path: Path,
    objective: str,
    more: dict[str, str],
    expected: tuple[float, str],
) -> None:
    programs = FakePrograms()
    epochs: list[tuple[float, int]] = []
    file = settings(tmp_path, SETTINGS.replace('"val_loss"', f'"{objective}"'))
    found = trial.run(
        tmp_path / "trial",
        {},
        more,
        re.compile(metrics.expressions(file.settings)[objective]),
        programs=cast("Programs[Any]", programs),
        report=lambda value, step: epochs.append((value, step)),
    )

    assert (found, programs.read[-1]) == expected
    expected_epochs = {
        "val_loss": [(2, 1), (4, 2)],
        "train_loss": [(3, 1), (1, 2)],
        "test_loss": [],
    }
    assert epochs == expected_epochs[objective]


def test_new_training_keeps_only_the_checkpoints(tmp_path: Path) -> None:
    job_inputs.prepare(tmp_path, {}, {})
    kept = tmp_path / "checkpoints" / "one.pt"
    for path in (kept, tmp_path / "model" / "x", tmp_path / "output" / "data" / "x.html"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    job_inputs.prepare(tmp_path, {}, {})

    assert [path for path in tmp_path.rglob("*") if path.suffix in {".pt", ".html"}] == [kept]
    assert list((tmp_path / "model").iterdir()) == []


def test_first_completed_of_equal_trials_is_the_best(tmp_path: Path) -> None:
    file = settings(tmp_path)
    assert file.settings.tuning
    study = local_tuning.open_study(tmp_path, file, file.settings.tuning)
    first, second, third = study.ask(), study.ask(), study.ask()
    study.tell(second, 0.5)
    study.tell(first, 0.5)
    # The metric is a loss.
    study.tell(third, 0.7)

    found = best_trial(study)
    assert found
    assert found.number == second.number


def test_trial_that_ends_while_worse_ones_are_removed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = settings(tmp_path)
    assert file.settings.tuning
    study = local_tuning.open_study(tmp_path, file, file.settings.tuning)
    first, second = study.ask(), study.ask()
    study.tell(first, 0.7)
    for number in range(2):
        (tmp_path / f"trial-{number:03}").mkdir()

    def end_second(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
        best = best_trial(study)
        study.tell(second, 0.5)
        return best

    monkeypatch.setattr(local_tuning, "best_trial", end_second)
    local_tuning._remove_worse_trials(study, tmp_path)

    assert (tmp_path / "trial-001").is_dir()


def test_other_search_in_the_same_folder_is_rejected(tmp_path: Path) -> None:
    file = settings(tmp_path)
    assert file.settings.tuning
    local_tuning.open_study(tmp_path, file, file.settings.tuning)
    other = settings(tmp_path, SETTINGS.replace("[4, 8]", "[4, 16]"))
    assert other.settings.tuning

    with pytest.raises(UserError, match="contains another search"):
        local_tuning.open_study(tmp_path, other, other.settings.tuning)


def test_bad_trials_are_stopped_early(tmp_path: Path) -> None:
    file = settings(tmp_path, SETTINGS.replace("jobs = 2", "jobs = 9\nearly_stopping = true"))
    assert file.settings.tuning
    study = local_tuning.open_study(tmp_path, file, file.settings.tuning)
    pruned = []
    for number in range(9):
        each = study.ask()
        each.report(1.0 + number, 1)
        pruned.append(each.should_prune())
        study.tell(each, 1.0 + number)

    assert not pruned[0]
    assert all(pruned[3:])


def test_no_trial_is_stopped_in_the_first_sixteenth(tmp_path: Path) -> None:
    longer = SETTINGS.replace("jobs = 2", "jobs = 9\nearly_stopping = true")
    file = settings(tmp_path, longer + "epochs = { min = 9, max = 48 }\n")
    assert file.settings.tuning
    study = local_tuning.open_study(tmp_path, file, file.settings.tuning)
    pruned: dict[int, list[bool]] = {}
    for number in range(9):
        each = study.ask()
        for epoch in range(1, 4):
            each.report(1.0 + number, epoch)
            pruned.setdefault(epoch, []).append(each.should_prune())
        study.tell(each, 1.0 + number)

    assert not any(pruned[1] + pruned[2])
    assert all(pruned[3][3:])


def test_hyperband_gets_the_maximal_epochs(tmp_path: Path) -> None:
    text = SETTINGS.replace("jobs = 2", 'jobs = 9\nstrategy = "Hyperband"')
    made = settings(tmp_path, text + "epochs = { min = 9, max = 27 }\n").settings
    assert made.tuning

    request: Any = training_requests.tuning_job(made, made.tuning, "x")

    strategy = request["HyperParameterTuningJobConfig"]["StrategyConfig"]
    assert strategy["HyperbandStrategyConfig"]["MaxResource"] == 27


def test_missing_data_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, SETTINGS, NAME)

    with pytest.raises(
        UserError, match=r"the folder .*/images/training of channel training does not exist"
    ):
        local_tuning.run(settings(tmp_path), tmp_path / "out", print)
    bare = write(tmp_path, "", NAME)
    assert main(["tune", str(bare), "--local"]) == 1
    assert "tune needs [tuning]" in capsys.readouterr().err
    assert path == bare


def test_page_has_charts_and_every_trial(tmp_path: Path) -> None:
    file = settings(tmp_path)
    tuning = file.settings.tuning
    assert tuning
    study = local_tuning.open_study(tmp_path, file, tuning)
    for number in range(8):
        each = study.ask()
        rate = each.suggest_float("learning_rate", 0.001, 0.1, log=True)
        each.suggest_categorical("batch_size", ["4", "8"])
        study.tell(each, rate + number / 1e6)

    tuning_page.write(tmp_path / "page.html", study, "<b>", tuning, "images")

    page = (tmp_path / "page.html").read_text()
    assert "Dataimages" in check_report(page).text.replace("\n", "")
    assert page.count("<tr class=") == 8
    assert page.count('<tr class="best"') == 1
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count('src="data:image/png;base64,') == 3
