"""The report of a local tuning job: one self-contained page with charts and all trials."""

import io
import threading
import warnings
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path

import matplotlib as mpl
import optuna
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as charts

from container.classifier.report_page import data_uri, template
from image_classifier.settings.tuning import Tuning

# PED-ANOVA compares the best half with all trials.
MIN_TRIALS = 4

# pyplot is not thread-safe, and trials end in several threads.
_PYPLOT_LOCK = threading.Lock()

TEMPLATE = Path(__file__).with_name("tuning.html.jinja")


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the best completed trial; of equal ones, the first to complete."""
    sign = -1 if study.direction == StudyDirection.MINIMIZE else 1
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ordered = sorted(done, key=attrgetter("datetime_complete"))
    return max(ordered, key=lambda trial: sign * (trial.value or 0.0), default=None)


def write(path: Path, study: optuna.Study, name: str, tuning: Tuning, data: str) -> None:
    """Write the page atomically; `data` is the images' folder."""
    names, metric = list(tuning.ranges), tuning.objective
    with _PYPLOT_LOCK, warnings.catch_warnings():
        # All functions of optuna.visualization.matplotlib are experimental.
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Optuna's axis of a value that all trials share.
        warnings.filterwarnings("ignore", "Attempting to set identical low and high", UserWarning)
        history = partial(charts.plot_optimization_history, study, target_name=metric)
        importances = partial(
            charts.plot_param_importances,
            study,
            evaluator=PedAnovaImportanceEvaluator(),
            target_name=metric,
        )
        coordinates = partial(charts.plot_parallel_coordinate, study, names, target_name=metric)
        images = {
            "Optimization history": _chart(study, history),
            "Hyperparameter importances": _chart(study, importances, MIN_TRIALS),
            "Parallel coordinates": _chart(study, coordinates),
        }
    text = template(TEMPLATE, four_digits=format_value).render(
        facts={"Project": name, "Data": data},
        name=name,
        metric=metric,
        names=names,
        trials=study.get_trials(deepcopy=False),
        best=best_trial(study),
        charts=images,
    )
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def format_value(value: object) -> str:
    """Return a hyperparameter's value with at most four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _chart(study: optuna.Study, plot: Callable[[], Axes], min_trials: int = 1) -> tuple[str, int]:
    """Return a chart as the URL of an image, empty with fewer completed trials than `min_trials`.

    The second value is `min_trials`.
    """
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < min_trials:
        return "", min_trials
    # Charts are drawn outside the main thread, where windows cannot be opened.
    mpl.use("Agg")
    buffer = io.BytesIO()
    plot()
    plt.savefig(buffer, format="png", bbox_inches="tight")
    plt.close()
    return data_uri(buffer.getvalue(), "png"), min_trials
