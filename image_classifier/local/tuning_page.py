"""The report of a local tuning job: one self-contained page with charts and all trials."""

import base64
import html
import io
import threading
import warnings
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from string import Template

import matplotlib as mpl
import optuna
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as charts

from image_classifier.settings.tuning import Tuning

# PED-ANOVA compares the best half with all trials.
MIN_TRIALS = 4

# pyplot is not thread-safe, and trials end in several threads.
_PYPLOT_LOCK = threading.Lock()

_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Tuning $name</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 800px; margin: 2rem auto; padding: 0 1rem }
img { max-width: 100% } table { border-collapse: collapse; font-size: 14px }
td, th { padding: .2rem .6rem; text-align: right }
tr.best { background: #dff0e0 } tr.pruned, tr.fail { color: #777 }
</style>
<h1>Tuning $name</h1>
<p>$summary</p>
<h2>Optimization history</h2>$history
<h2>Hyperparameter importances</h2>$importances
<h2>Trials</h2>$coordinates
<table><tr>$header</tr>$rows</table>
</html>
""")


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the best completed trial; of equal ones, the first to complete."""
    sign = -1 if study.direction == StudyDirection.MINIMIZE else 1
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ordered = sorted(done, key=attrgetter("datetime_complete"))
    return max(ordered, key=lambda trial: sign * (trial.value or 0.0), default=None)


def write(path: Path, study: optuna.Study, name: str, tuning: Tuning) -> None:
    """Write the page atomically."""
    trials = study.get_trials(deepcopy=False)
    names, metric = list(tuning.ranges), tuning.objective
    with _PYPLOT_LOCK, warnings.catch_warnings():
        # All functions of optuna.visualization.matplotlib are experimental.
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Optuna's axis of a value that all trials share.
        warnings.filterwarnings("ignore", "Attempting to set identical low and high", UserWarning)
        history = _chart(study, lambda: charts.plot_optimization_history(study, target_name=metric))
        importances = _chart(study, lambda: _plot_importances(study, metric), MIN_TRIALS)
        coordinates = _chart(
            study, lambda: charts.plot_parallel_coordinate(study, names, target_name=metric)
        )
    best = best_trial(study)
    header = "".join(f"<th>{html.escape(word)}</th>" for word in ("trial", "state", metric, *names))
    text = _PAGE.substitute(
        name=html.escape(name),
        summary=html.escape(_summary(best, trials, metric)),
        history=history,
        importances=importances,
        coordinates=coordinates,
        header=header,
        rows="".join(
            _row(trial, names, is_best=best is not None and trial.number == best.number)
            for trial in trials
        ),
    )
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def format_value(value: object) -> str:
    """Return a hyperparameter's value with at most four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plot_importances(study: optuna.Study, metric: str) -> Axes:
    evaluator = PedAnovaImportanceEvaluator()
    return charts.plot_param_importances(study, evaluator=evaluator, target_name=metric)


def _chart(study: optuna.Study, plot: Callable[[], Axes], min_trials: int = 1) -> str:
    """Return a chart as an HTML image, or a sentence if too few trials are complete."""
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < min_trials:
        return f"<p>This chart needs {min_trials} completed trials.</p>"
    # Charts are drawn outside the main thread, where windows cannot be opened.
    mpl.use("Agg")
    buffer = io.BytesIO()
    plot()
    plt.savefig(buffer, format="png", bbox_inches="tight")
    plt.close()
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" src="data:image/png;base64,{data}">'


def _summary(best: FrozenTrial | None, trials: Sequence[FrozenTrial], metric: str) -> str:
    states = [trial.state for trial in trials]
    counts = (
        f"{len(trials)} trials: {states.count(TrialState.COMPLETE)} completed, "
        f"{states.count(TrialState.PRUNED)} stopped early."
    )
    if best is None:
        return counts
    values = ", ".join(f"{key} {format_value(value)}" for key, value in best.params.items())
    return f"{counts} The best is trial {best.number}: {metric} {best.value:.5g} with {values}."


def _row(trial: FrozenTrial, names: Sequence[str], *, is_best: bool) -> str:
    state = trial.state.name.lower()
    value = "" if trial.value is None else f"{trial.value:.5g}"
    values = [format_value(trial.params.get(name, "")) for name in names]
    words = (str(trial.number), state, value, *values)
    cells = "".join(f"<td>{html.escape(word)}</td>" for word in words)
    return f'<tr class="{"best" if is_best else state}">{cells}</tr>'
