"""`tune --local`: the tuning job of the settings on this machine, with Optuna.

Trials are processes or containers, one per usable CPU at a time. They share the decoded images and
the features of frozen networks, and processes also the loaded training program. The state is in a
database: a search that was stopped or killed continues.
"""

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from container.classifier.errors import UserError
from container.classifier.machine import usable_cpus
from image_classifier.local import job_inputs, tuning_page
from image_classifier.local import trial as trials
from image_classifier.local.packing import BEST, MODEL, pack
from image_classifier.local.programs import (
    ContainerPrograms,
    ForkedPrograms,
    Programs,
    TrialFailedError,
)
from image_classifier.local.tuning_page import best_trial, format_value
from image_classifier.local.tuning_progress import TuningProgress
from image_classifier.platform.program import handle_stop_signals
from image_classifier.platform.sandbox.launch import Limits
from image_classifier.platform.training import LOG_FILE
from image_classifier.settings import metric_definitions as metrics
from image_classifier.settings.schema import Settings
from image_classifier.settings.section import to_strings
from image_classifier.settings.settings_file import SettingsFile
from image_classifier.settings.tuning import Range, Tuning, is_integer

DATABASE, PAGE = "study.db", "tuning.html"

DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def run(
    file: SettingsFile,
    folder: Path,
    show: Callable[[str], None],
    *,
    container: Limits | None = None,
    is_quiet: bool = False,
) -> FrozenTrial:
    """Run all trials of the settings; return the best one.

    `container` limits the container of each trial; None: the trials are processes.

    Writes the page, the best hyperparameters and the model into `folder`; with `is_quiet` nothing
    is printed but by `show`.

    Raises:
        UserError: the settings have no tuning, a channel is missing, or no trial completed.
        KeyboardInterrupt: the search was stopped.
    """
    settings, tuning = file.settings, file.settings.tuning
    if tuning is None:
        raise UserError(f"{file.path}: tune needs [tuning]")
    channels = job_inputs.find_channels(file)
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study(folder, file, tuning)
    total = tuning.trial_count
    left = max(total - len(study.get_trials(states=DONE)), 0)
    cpus = max(1, int(usable_cpus()))
    parallel = min(tuning.parallel, cpus)

    def objective(trial: optuna.Trial) -> float:
        return _train(trial, file, folder, channels, programs=programs, progress=progress)

    def after_trial(_study: optuna.Study, trial: FrozenTrial) -> None:
        if programs.is_stopped:
            study.stop()
        progress.finish(trial.number, best_trial(study))
        progress.show(_line(trial))
        _remove_worse_trials(study, folder)
        tuning_page.write(folder / PAGE, study, settings.name, tuning, str(file.local_data))

    show(f"{left} of {total} trials to go, {parallel} at a time, in {folder}")
    programs = _programs(file, channels.values(), cpus // parallel, container)
    progress = TuningProgress(total, left, show, is_quiet=is_quiet)
    with programs, handle_stop_signals(programs.stop):
        with progress:
            study.optimize(
                objective, left, n_jobs=parallel, catch=(TrialFailedError,), callbacks=[after_trial]
            )
        best = best_trial(study)
        if best is not None and not programs.is_stopped:
            finish(best, folder, programs, show)
        if programs.is_stopped:
            raise KeyboardInterrupt(f"stopped; the next `tune --local` continues with {folder}")
    if best is None:
        raise UserError(f"no trial completed: read {folder}/trial-*/{LOG_FILE}")
    return best


def _train(
    trial: optuna.Trial,
    file: SettingsFile,
    folder: Path,
    channels: Mapping[str, Path],
    *,
    programs: Programs[Any],
    progress: TuningProgress,
) -> float:
    """Run one trial; return its objective."""
    settings, tuning = file.settings, file.settings.tuning
    if tuning is None:
        raise AssertionError
    suggested = {n: _suggest(trial, n, limits) for n, limits in tuning.ranges.items()}
    epochs = int(str(suggested.get("epochs", tuning.max_epochs(settings.hyperparameters))))

    def report(value: float, step: int) -> None:
        # After the last epoch the best weights are evaluated.
        progress.update(trial.number, step / (epochs + 1))
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    progress.update(trial.number, 0)
    return trials.run(
        _base_dir(folder, trial.number),
        channels,
        to_strings({**_fixed(settings, tuning), **suggested}),
        re.compile(metrics.expressions(settings)[tuning.objective]),
        programs=programs,
        report=report,
    )


def _programs(
    file: SettingsFile, channels: Iterable[Path], threads: int, container: Limits | None
) -> Programs[Any]:
    if container is None:
        return ForkedPrograms(threads)
    has_network = job_inputs.has_network(file)
    return ContainerPrograms(threads, list(channels), has_network=has_network, limits=container)


def open_study(folder: Path, file: SettingsFile, tuning: Tuning) -> optuna.Study:
    """Return the study with its state; interrupted trials are queued again.

    Raises:
        UserError: the folder contains a search with other settings.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    definition = {
        "hyperparameters": dict(file.settings.hyperparameters),
        "ranges": {name: repr(limits) for name, limits in sorted(tuning.ranges.items())},
        "objective": tuning.objective,
        "strategy": tuning.strategy,
        "data": str(file.local_data),
    }
    study = optuna.create_study(
        storage=f"sqlite:///{(folder / DATABASE).resolve()}",
        study_name=file.settings.name,
        direction="minimize" if tuning.is_minimized else "maximize",
        pruner=_pruner(file, tuning),
        load_if_exists=True,
    )
    text = json.dumps(definition, sort_keys=True)
    if study.user_attrs.setdefault("definition", text) != text:
        raise UserError(
            f"{folder} contains another search: remove it, or give these settings another name"
        )
    study.set_user_attr("definition", text)
    # Another seed, so that a search that continues does not draw the same values again.
    study.sampler = _sampler(tuning, tuning.seed + len(study.trials))
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if tuning.strategy != "Grid":
            study.enqueue_trial(trial.params)
    if tuning.strategy == "Grid":
        _enqueue_grid(study, tuning)
    return study


def finish(
    best: FrozenTrial, folder: Path, programs: Programs[Any], show: Callable[[str], None]
) -> None:
    """Write the best trial's hyperparameters, and its model as SageMaker packs one.

    Raises:
        UserError: the trial cannot make its model.
    """
    document = {"trial": best.number, "objective": best.value, "hyperparameters": best.params}
    text = json.dumps(document, indent=2) + "\n"
    best_path, model_path = folder / BEST, folder / MODEL
    if model_path.exists() and best_path.exists() and best_path.read_text("utf-8") == text:
        return
    show(f"trial {best.number} is the best; exporting its model")
    base_dir = _base_dir(folder, best.number)
    if not base_dir.is_dir():
        raise UserError(
            f"{base_dir}, the best trial, does not exist: remove {folder} and tune again"
        )
    try:
        with programs.lines(base_dir) as lines:
            for line in lines:
                show(line.rstrip("\n"))
    except TrialFailedError as error:
        if programs.is_stopped:
            return
        raise UserError(
            f"no model of trial {best.number}: {error}; read {base_dir / LOG_FILE}"
        ) from None
    pack(base_dir / "model", model_path)
    # Last, because it states which trial the model is of.
    best_path.write_text(text, encoding="utf-8")


def _fixed(settings: Settings, tuning: Tuning) -> dict[str, object]:
    """Return the hyperparameters that all trials share."""
    fixed = {k: v for k, v in settings.hyperparameters.items() if k not in tuning.ranges}
    # Without rules, no program reads the tensors of a trial.
    return fixed if "debug_rules" in fixed else {"debug": "off", **fixed}


def _enqueue_grid(study: optuna.Study, tuning: Tuning) -> None:
    """Queue the points that are neither done nor queued, and those of failed trials."""
    known = [trial.params for trial in study.get_trials(states=DONE)]
    queued = study.get_trials(states=(TrialState.WAITING,))
    known += [trial.user_attrs["point"] for trial in queued]
    for point in _grid(tuning):
        if point not in known:
            study.enqueue_trial(point, user_attrs={"point": point})


def _grid(tuning: Tuning) -> list[dict[str, str]]:
    values = ([str(value) for value in limits.values] for limits in tuning.ranges.values())
    return [dict(zip(tuning.ranges, point, strict=True)) for point in itertools.product(*values)]


def _sampler(tuning: Tuning, seed: int) -> BaseSampler:
    if tuning.strategy in {"Random", "Grid"}:
        # All points of a grid are queued; none is drawn.
        return RandomSampler(seed=seed)
    # constant_liar: parallel trials do not all get the same values.
    return TPESampler(seed=seed, constant_liar=True, n_startup_trials=5)


def _pruner(file: SettingsFile, tuning: Tuning) -> BasePruner:
    max_epochs = tuning.max_epochs(file.settings.hyperparameters)
    if tuning.strategy == "Hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max_epochs, reduction_factor=3)
    if tuning.early_stopping:
        # Asynchronous successive halving: no trial waits for others. In the first sixteenth of
        # the longest run learning rates still rise, and trials do not differ yet.
        return SuccessiveHalvingPruner(min_resource=max(1, max_epochs // 16), reduction_factor=3)
    return NopPruner()


def _suggest(trial: optuna.Trial, name: str, limits: Range) -> object:
    if limits.values:
        return trial.suggest_categorical(name, [str(value) for value in limits.values])
    low, high = limits.bounds
    is_logarithmic = limits.scaling == "Logarithmic"
    if is_integer(name):
        return trial.suggest_int(name, int(low), int(high), log=is_logarithmic)
    return trial.suggest_float(name, low, high, log=is_logarithmic)


def _line(trial: FrozenTrial) -> str:
    value = "" if trial.value is None else f" {trial.value:.5g}"
    params = " ".join(f"{name}={format_value(value)}" for name, value in trial.params.items())
    return f"trial {trial.number}: {trial.state.name.lower()}{value} {params}"


def _remove_worse_trials(study: optuna.Study, folder: Path) -> None:
    """Remove the files of all trials except the best one and those that failed."""
    # Listed first: a better trial may end in another thread meanwhile.
    done = study.get_trials(deepcopy=False, states=DONE)
    best = best_trial(study)
    for trial in done:
        if best is None or trial.number != best.number:
            shutil.rmtree(_base_dir(folder, trial.number), ignore_errors=True)


def _base_dir(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:03}"
