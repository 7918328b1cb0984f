"""The explanation of one image."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from image_classifier.explainer import coalitions, shapley
from image_classifier.explainer.analysis import Shap
from image_classifier.explainer.coalitions import Coalitions
from image_classifier.explainer.faithfulness import Curves, rank_correlation
from image_classifier.explainer.image import SegmentedImage
from image_classifier.explainer.model import Model

Values: TypeAlias = npt.NDArray[np.float64]

EXACT, KERNEL = "exact", "kernel"

# Probabilities of 0 and 1 have no log-odds.
MIN_PROBABILITY = 1e-6


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


class Evaluations:
    """A model's scores of coalitions of one image, each requested once."""

    def __init__(
        self,
        model: Model,
        image: SegmentedImage,
        on_progress: Callable[[int], object] = lambda _count: None,
    ) -> None:
        """Start without scores; `on_progress` is called with the number of new ones."""
        self._model, self._image, self._on_progress = model, image, on_progress
        self._rows: dict[bytes, Values] = {}

    def __call__(self, coalitions: Coalitions) -> Values:
        """Return the scores (S, C) of coalitions (S, M)."""
        keys = [row.tobytes() for row in coalitions]
        new = {key: row for key, row in zip(keys, coalitions, strict=True) if key not in self._rows}
        if new:
            rows = self._model.scores(self._image, np.stack([*new.values()]), self._on_progress)
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

    Args:
        image: The image with its superpixels.
        model: The model to explain.
        shap: The settings.
        randomized: The same network with random weights, for the sanity check.
        on_progress: Called with the number of new evaluations of each batch.

    Raises:
        UserError: the model fails.
    """
    count = image.segment_count
    evaluate = Evaluations(model, image, on_progress)
    values, method = shapley_values(evaluate, count, shap)
    full, empty = evaluate(np.stack([np.ones(count, bool), np.zeros(count, bool)]))
    predicted = int(full.argmax())
    curves = Curves.measure(evaluate, values, predicted, np.random.default_rng(shap.seed))
    sanity = None
    if randomized is not None:
        others, _ = shapley_values(Evaluations(randomized, image, on_progress), count, shap)
        own, other = values[:, predicted], others[:, predicted]
        sanity = Sanity(
            correlation=rank_correlation(own, other),
            absolute_correlation=rank_correlation(abs(own), abs(other)),
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


def shapley_values(
    evaluate: Callable[[Coalitions], Values], segments: int, shap: Shap
) -> tuple[Values, str]:
    """Return Shapley values (M, C) and the method: exact if the samples suffice for it."""

    def evaluate_scale(coalitions: Coalitions) -> Values:
        scores = evaluate(coalitions)
        return _log_odds(scores) if shap.use_logit else scores

    if 2**segments <= shap.num_samples:
        return shapley.exact(evaluate_scale(coalitions.every(segments))), EXACT
    rng = np.random.default_rng(shap.seed)
    sample, weights = coalitions.sample(segments, shap.num_samples - 2, rng)
    ends = np.stack([np.zeros(segments, bool), np.ones(segments, bool)])
    empty, full, *values = evaluate_scale(np.concatenate([ends, sample]))
    return shapley.kernel(sample, weights, np.stack(values), empty=empty, full=full), KERNEL


def _log_odds(scores: Values) -> Values:
    clipped = scores.clip(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    odds: Values = np.log(clipped / (1 - clipped))
    return odds
