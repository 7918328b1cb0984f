"""`tune --local`: the settings' search on this machine, with Optuna in place of the service.

Trials are processes, as many at a time as there are processors for; they share the loaded program,
the decoded images and the features of frozen networks. The state is in a database: a
search that was stopped, or killed, continues where it was.
"""

import itertools
import json
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from container.classifier.errors import UserError
from container.classifier.machine import usable_cpus
from image_classifier.local import trial, tuning_page
from image_classifier.local.best_trial import best
from image_classifier.local.trial import Programs, TrialFailedError
from image_classifier.settings import metric_definitions as metrics
from image_classifier.settings.schema import Settings
from image_classifier.settings.section import to_strings
from image_classifier.settings.settings_file import SettingsFile
from image_classifier.settings.tuning import Range, Tuning, is_integer

DATABASE, PAGE, BEST, MODEL = "study.db", "tuning.html", "best.json", "model.tar.gz"

DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def run(file: SettingsFile, folder: Path, show: Callable[[str], None]) -> FrozenTrial:
    """Search until all jobs of the settings are done; return the best trial.

    Page, best hyperparameters and model are left in `folder`.

    Raises:
        UserError: there is nothing to search, a channel is missing, or no trial came to an end.
    """
    settings, tuning = file.settings, file.settings.tuning
    if tuning is None:
        message = f"{file.path}: tune needs [tuning]"
        raise UserError(message)
    channels = file.local_channels()
    folder.mkdir(parents=True, exist_ok=True)
    study = _open(folder, file, tuning)
    wanted = _trials(tuning)
    left = wanted - len(study.get_trials(states=DONE))
    processors = count_processors()
    parallel = min(tuning.parallel, processors)
    static = _static(settings, tuning)

    def one(each: optuna.Trial) -> float:
        chosen = {name: _suggest(each, name, found) for name, found in tuning.ranges.items()}

        def report(value: float, step: int) -> None:
            each.report(value, step)
            if each.should_prune():
                raise optuna.TrialPruned

        return trial.run(
            _base_dir(folder, each.number),
            channels,
            to_strings({**static, **chosen}),
            metrics.expression(settings, tuning.objective),
            programs=programs,
            report=report,
        )

    def after(_study: optuna.Study, each: FrozenTrial) -> None:
        if programs.is_stopped:
            study.stop()
        show(_line(each))
        _remove_worse(study, folder)
        tuning_page.write(folder / PAGE, study, settings.name, tuning)

    show(f"{max(left, 0)} of {wanted} trials to go, {parallel} at a time, in {folder}")
    programs = Programs(threads=max(1, processors // parallel))
    with programs, _stopped_by_signals(programs):
        study.optimize(
            one, max(left, 0), n_jobs=parallel, catch=(TrialFailedError,), callbacks=[after]
        )
        found = best(study)
        if found is not None and not programs.is_stopped:
            _finish(found, folder, programs, show)
        is_stopped = programs.is_stopped
    if is_stopped:
        message = f"stopped; the next `tune --local` continues with what is in {folder}"
        raise UserError(message)
    if found is None:
        message = f"no trial finished: see {folder}/trial-*/{trial.LOG}"
        raise UserError(message)
    return found


def count_processors() -> int:
    """Return the number of trials that run at the same time, one per usable CPU."""
    return max(1, int(usable_cpus()))


def _open(folder: Path, file: SettingsFile, tuning: Tuning) -> optuna.Study:
    """Return the search with what is known of it; trials that were cut off are tried again."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    definition = {
        "hyperparameters": dict(file.settings.hyperparameters),
        "ranges": {name: repr(each) for name, each in sorted(tuning.ranges.items())},
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
        message = f"{folder} holds another search: remove it, or give these settings another name"
        raise UserError(message)
    study.set_user_attr("definition", text)
    # A search that continues draws other values than those that it began with.
    study.sampler = _sampler(tuning, tuning.seed + len(study.trials))
    for each in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(each.number, state=TrialState.FAIL)
        if tuning.strategy != "Grid":
            study.enqueue_trial(each.params)
    if tuning.strategy == "Grid":
        _enqueue_grid(study, tuning)
    return study


def _static(settings: Settings, tuning: Tuning) -> dict[str, object]:
    """Return the hyperparameters that all trials share."""
    static = {k: v for k, v in settings.hyperparameters.items() if k not in tuning.ranges}
    if "debug_rules" in static:
        return static
    # A trial's records are deleted with its folder.
    return {"debug": "off", **static}


def _enqueue_grid(study: optuna.Study, tuning: Tuning) -> None:
    """Let those points be tried that are neither done nor queued; failed ones once more."""
    known = [each.params for each in study.get_trials(states=DONE)]
    queued = study.get_trials(states=(TrialState.WAITING,))
    known += [each.user_attrs["point"] for each in queued]
    for point in _grid(tuning):
        if point not in known:
            study.enqueue_trial(point, user_attrs={"point": point})


def _grid(tuning: Tuning) -> list[dict[str, str]]:
    values = ([str(value) for value in each.values] for each in tuning.ranges.values())
    return [dict(zip(tuning.ranges, point, strict=True)) for point in itertools.product(*values)]


def _sampler(tuning: Tuning, seed: int) -> BaseSampler:
    if tuning.strategy in {"Random", "Grid"}:
        # Of a grid all is queued, and nothing drawn.
        return RandomSampler(seed=seed)
    # constant_liar: trials at a time do not all try the same.
    return TPESampler(seed=seed, constant_liar=True, n_startup_trials=5)


def _pruner(file: SettingsFile, tuning: Tuning) -> BasePruner:
    most = tuning.max_epochs(file.settings.hyperparameters)
    if tuning.strategy == "Hyperband":
        return HyperbandPruner(min_resource=1, max_resource=most, reduction_factor=3)
    if tuning.early_stopping:
        # Asynchronous successive halving: no trial waits for others. In the first sixteenth of
        # the longest run learning rates still rise, and all trials look alike.
        return SuccessiveHalvingPruner(min_resource=max(1, most // 16), reduction_factor=3)
    return NopPruner()


def _suggest(each: optuna.Trial, name: str, found: Range) -> object:
    if found.values:
        return each.suggest_categorical(name, [str(value) for value in found.values])
    is_logarithmic = found.scaling == "Logarithmic"
    if is_integer(name):
        return each.suggest_int(name, int(found.low), int(found.high), log=is_logarithmic)
    return each.suggest_float(name, found.low, found.high, log=is_logarithmic)


def _trials(tuning: Tuning) -> int:
    if tuning.strategy == "Grid":
        return len(_grid(tuning))
    return tuning.jobs


def _line(each: FrozenTrial) -> str:
    value = "" if each.value is None else f" {each.value:.5g}"
    words = " ".join(f"{name}={_short(found)}" for name, found in each.params.items())
    return f"trial {each.number}: {each.state.name.lower()}{value} {words}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _remove_worse(study: optuna.Study, folder: Path) -> None:
    """Keep the best trial's files and the logs of those that failed."""
    done = study.get_trials(deepcopy=False, states=DONE)
    kept = best(study)
    for each in done:
        if kept is None or each.number != kept.number:
            shutil.rmtree(_base_dir(folder, each.number), ignore_errors=True)


def _finish(
    found: FrozenTrial, folder: Path, programs: Programs, show: Callable[[str], None]
) -> None:
    """Write the best trial's hyperparameters, and its model as SageMaker packs one.

    Raises:
        UserError: the model could not be made.
    """
    document = {"trial": found.number, "objective": found.value, "hyperparameters": found.params}
    text = json.dumps(document, indent=2) + "\n"
    best_path, model_path = folder / BEST, folder / MODEL
    if model_path.exists() and best_path.exists() and best_path.read_text("utf-8") == text:
        return
    show(f"trial {found.number} is the best; its model is made")
    base_dir = _base_dir(folder, found.number)
    if not base_dir.is_dir():
        message = f"{base_dir} is gone, and with it the best trial: remove {folder} and tune anew"
        raise UserError(message)
    try:
        trial.finish(base_dir, programs)
    except TrialFailedError as error:
        if programs.is_stopped:
            return
        message = f"no model of trial {found.number}: {error}; more in {base_dir / trial.LOG}"
        raise UserError(message) from None
    pack(base_dir / "model", model_path)
    # Last: it names the trial of the model.
    best_path.write_text(text, encoding="utf-8")


def _base_dir(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:03}"


def pack(model: Path, target: Path) -> None:
    """Pack a model's folder as SageMaker does, whole or not at all."""
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w:gz") as archive:
        for path in sorted(model.iterdir()):
            archive.add(path, path.name)
    partial.replace(target)


@contextmanager
def _stopped_by_signals(programs: Programs) -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        programs.stop()

    previous: Mapping[int, object] = {
        number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
