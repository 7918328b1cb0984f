"""The explanation of one image, and its faithfulness to the model.

Deletion and insertion are by Petsiuk et al. 2018, the comparison with a randomized network is by
Adebayo et al. 2018, both with superpixels instead of pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy.stats import spearmanr

from image_classifier.explainer import shapley
from image_classifier.explainer.analysis import Shap
from image_classifier.explainer.image import SegmentedImage
from image_classifier.explainer.model import Model
from image_classifier.explainer.shapley import Coalitions, Values

Curve: TypeAlias = tuple[float, ...]

RANDOM_ORDERS = 5

# Probabilities of 0 and 1 have no log-odds.
MIN_PROBABILITY = 1e-6


class Curves(BaseModel):
    """The predicted class's score by the number of changed superpixels, of shape (M + 1,) each."""

    model_config = ConfigDict(frozen=True)

    deletion: Curve
    """Superpixels are hidden, the most important first; the sooner the score falls, the better."""

    insertion: Curve
    """Superpixels are shown, the most important first; the sooner the score rises, the better."""

    random: Curve
    """Superpixels are hidden in random order (mean); reversed, it is the curve of insertion."""

    @property
    def deletion_area(self) -> float:
        """Area under the curve over the fraction of hidden superpixels; low is good."""
        return _area(self.deletion)

    @property
    def insertion_area(self) -> float:
        """Area under the curve over the fraction of shown superpixels; high is good."""
        return _area(self.insertion)

    @property
    def random_area(self) -> float:
        """Both areas of an explanation that is independent of the model."""
        return _area(self.random)


class Sanity(BaseModel):
    """Similarity of the explanations of the network and of a randomized one."""

    model_config = ConfigDict(frozen=True)

    correlation: float
    """Rank correlation of the predicted class's Shapley values; near 0 is sane."""

    absolute_correlation: float
    """Rank correlation of the values' magnitudes."""


class Explanation(BaseModel):
    """Shapley values of one image, and how faithful they are to the model."""

    model_config = ConfigDict(frozen=True)

    scores: tuple[float, ...]
    """Scores of the image, one per class."""

    expected: tuple[float, ...]
    """Scores of the baseline, to which the Shapley values are added."""

    shapley: tuple[tuple[float, ...], ...]
    """A row per superpixel with one value per class."""

    method: str
    """`exact` if all coalitions were evaluated, else `kernel`."""

    evaluations: int
    """Number of masked images that the model has classified."""

    curves: Curves
    sanity: Sanity | None
    """None without a randomized model."""

    @property
    def predicted(self) -> int:
        """The class of the highest score."""
        return int(np.argmax(self.scores))


@dataclass(slots=True)
class Evaluations:
    """A model's scores of coalitions of one image, each requested once."""

    model: Model
    image: SegmentedImage

    on_progress: Callable[[int], object] = lambda _count: None
    """Called with the number of new evaluations of each batch."""

    _rows: dict[bytes, Values] = field(default_factory=dict)

    def __call__(self, coalitions: Coalitions) -> Values:
        """Return the scores (S, C) of coalitions (S, M)."""
        keys = [row.tobytes() for row in coalitions]
        new = {key: row for key, row in zip(keys, coalitions, strict=True) if key not in self._rows}
        if new:
            rows = self.model.scores(self.image, np.stack([*new.values()]), self.on_progress)
            self._rows.update(zip(new, rows, strict=True))
        return np.stack([self._rows[key] for key in keys])

    def __len__(self) -> int:
        """Return the number of evaluated coalitions."""
        return len(self._rows)


def explain(
    image: SegmentedImage,
    model: Model,
    shap: Shap,
    *,
    randomized: Model | None = None,
    on_progress: Callable[[int], object] = lambda _count: None,
) -> Explanation:
    """Explain a model's prediction for an image.

    `randomized` is the same network with random weights, for the sanity check; `on_progress` is
    called with the number of new evaluations of each batch.

    Raises:
        UserError: the model fails.
    """
    count = image.segment_count
    evaluate = Evaluations(model, image, on_progress)
    values, method = _shapley_values(evaluate, count, shap)
    full, empty = evaluate(np.stack([np.ones(count, bool), np.zeros(count, bool)]))
    predicted = int(full.argmax())
    curves = _measure_curves(evaluate, values[:, predicted], predicted, shap.seed)
    sanity = None
    if randomized is not None:
        others, _ = _shapley_values(Evaluations(randomized, image, on_progress), count, shap)
        own, other = values[:, predicted], others[:, predicted]
        sanity = Sanity(
            correlation=_rank_correlation(own, other),
            absolute_correlation=_rank_correlation(abs(own), abs(other)),
        )
    return Explanation(
        scores=tuple(full.tolist()),
        expected=tuple(empty.tolist()),
        shapley=tuple(map(tuple, values.tolist())),
        method=method,
        evaluations=len(evaluate),
        curves=curves,
        sanity=sanity,
    )


def _shapley_values(evaluate: Evaluations, segments: int, shap: Shap) -> tuple[Values, str]:
    """Return Shapley values (M, C) and the method: exact if the samples suffice for it."""

    def evaluate_scale(coalitions: Coalitions) -> Values:
        scores = evaluate(coalitions)
        return _log_odds(scores) if shap.use_logit else scores

    if 2**segments <= shap.num_samples:
        return shapley.exact(evaluate_scale(shapley.all_coalitions(segments))), "exact"
    rng = np.random.default_rng(shap.seed)
    sample, weights = shapley.sample(segments, shap.num_samples - 2, rng)
    ends = np.stack([np.zeros(segments, bool), np.ones(segments, bool)])
    empty, full, *values = evaluate_scale(np.concatenate([ends, sample]))
    return shapley.kernel(sample, weights, np.stack(values), empty=empty, full=full), "kernel"


def _log_odds(scores: Values) -> Values:
    clipped = scores.clip(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    odds: Values = np.log(clipped / (1 - clipped))
    return odds


def _measure_curves(evaluate: Evaluations, values: Values, label: int, seed: int) -> Curves:
    """Measure the curves of the class `label`, whose Shapley values are (M,)."""
    rng = np.random.default_rng(seed)
    hiding = _hide_in_order(np.argsort(-values, kind="stable"))
    orders = [_hide_in_order(rng.permutation(len(values))) for _ in range(RANDOM_ORDERS)]
    # One call, so that requests are always in flight.
    scores = evaluate(np.concatenate([hiding, ~hiding, *orders]))[:, label]
    deletion, insertion, *random = np.split(scores, 2 + RANDOM_ORDERS)
    return Curves(
        deletion=tuple(deletion.tolist()),
        insertion=tuple(insertion.tolist()),
        random=tuple(np.mean(random, axis=0).tolist()),
    )


def _hide_in_order(order: npt.NDArray[np.int64]) -> Coalitions:
    """Return coalitions (M + 1, M): all visible, then one hidden after the other."""
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks >= np.arange(len(order) + 1)[:, None]


def _area(curve: Curve) -> float:
    """Return the area under a curve of equidistant points from 0 to 1."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def _rank_correlation(values: Values, others: Values) -> float:
    """Return Spearman's rank correlation; 0 if the values or the others are constant."""
    if np.ptp(values) == 0 or np.ptp(others) == 0:
        return 0.0
    return float(spearmanr(values, others).statistic)
