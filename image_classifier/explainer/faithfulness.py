"""Faithfulness of an explanation to the model.

Deletion and insertion are by Petsiuk et al. 2018, the comparison with a randomized network is by
Adebayo et al. 2018, both with superpixels instead of pixels.
"""

from collections.abc import Callable
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy.stats import rankdata

from image_classifier.explainer.coalitions import Coalitions

Values: TypeAlias = npt.NDArray[np.float64]
Curve: TypeAlias = tuple[float, ...]

RANDOM_ORDERS = 5


class Curves(BaseModel):
    """The predicted class's score by the number of changed superpixels, of shape (M + 1,) each."""

    model_config = ConfigDict(frozen=True)

    deletion: Curve
    """Superpixels are hidden, the most important first; the sooner the score falls, the better."""

    insertion: Curve
    """Superpixels are shown, the most important first; the sooner the score rises, the better."""

    random: Curve
    """Superpixels are hidden in random order (mean); reversed, it is the curve of insertion."""

    @classmethod
    def measure(
        cls,
        evaluate: Callable[[Coalitions], Values],
        shapley: Values,
        label: int,
        rng: np.random.Generator,
    ) -> Self:
        """Measure the curves of the class `label` by its Shapley values (M, C)."""
        order = np.argsort(-shapley[:, label], kind="stable")
        hiding = _hide_in_order(order)
        orders = [_hide_in_order(rng.permutation(len(order))) for _ in range(RANDOM_ORDERS)]
        # One call, so that requests are always in flight.
        values = evaluate(np.concatenate([hiding, ~hiding, *orders]))[:, label]
        deletion, insertion, *random = np.split(values, 2 + RANDOM_ORDERS)
        return cls(
            deletion=tuple(deletion.tolist()),
            insertion=tuple(insertion.tolist()),
            random=tuple(np.mean(random, axis=0).tolist()),
        )

    @property
    def deletion_area(self) -> float:
        """Area under the curve over the share of hidden superpixels; low is good."""
        return area(self.deletion)

    @property
    def insertion_area(self) -> float:
        """Area under the curve over the share of shown superpixels; high is good."""
        return area(self.insertion)

    @property
    def random_area(self) -> float:
        """Both areas of an explanation that is independent of the model."""
        return area(self.random)


def area(curve: Curve) -> float:
    """Return the area under a curve of equidistant points from 0 to 1."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def rank_correlation(values: Values, others: Values) -> float:
    """Return Spearman's rank correlation; 0 if one side is constant."""
    ranks = np.stack([rankdata(values), rankdata(others)])
    if (ranks.std(axis=1) == 0).any():
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])


def _hide_in_order(order: npt.NDArray[np.int64]) -> Coalitions:
    """Return coalitions (M + 1, M): all visible, then one hidden after the other."""
    steps = np.arange(len(order) + 1)[:, None]
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks >= steps
