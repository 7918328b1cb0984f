"""Which trial of a search on this machine is the best: the one whose model is kept."""

from operator import attrgetter

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


def best(study: optuna.Study) -> FrozenTrial | None:
    """Return the best finished trial, of equal ones the first to finish; Optuna returns any."""
    sign = -1 if study.direction == StudyDirection.MINIMIZE else 1
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ordered = sorted(done, key=attrgetter("datetime_complete"))
    return max(ordered, key=lambda each: sign * (each.value or 0.0), default=None)
