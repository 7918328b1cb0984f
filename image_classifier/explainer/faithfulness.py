"""Whether an explanation is true of the model: what happens when it is acted upon.

Deletion and insertion are by Petsiuk et al. 2018, the comparison with a randomized network by
Adebayo et al. 2018, both with super-pixels in place of pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from image_classifier.explainer.coalitions import Members

Values = npt.NDArray[np.float64]

# A quarter of the evaluations that the curves of one image take each.
RANDOM_ORDERS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """The predicted class's score while super-pixels go or come, of shape (M + 1,) each."""

    deletion: tuple[float, ...]
    """The most important one is hidden first; the sooner the score falls, the better."""

    insertion: tuple[float, ...]
    """The most important one is shown first; the sooner the score rises, the better."""

    random: tuple[float, ...]
    """Mean over random orders of hiding; read backwards it is their insertion as well."""

    @classmethod
    def of(
        cls,
        evaluate: Callable[[Members], Values],
        shapley: Values,
        label: int,
        rng: np.random.Generator,
    ) -> Self:
        """Measure the curves of the class `label` by its Shapley values (M, C)."""
        order = np.argsort(-shapley[:, label], kind="stable")
        hiding = _hiding(order)
        orders = [_hiding(rng.permutation(len(order))) for _ in range(RANDOM_ORDERS)]
        # Asked for all at once: the server is never without work.
        values = evaluate(np.concatenate([hiding, ~hiding, *orders]))[:, label]
        deletion, insertion, *random = np.split(values, 2 + RANDOM_ORDERS)
        return cls(
            deletion=tuple(deletion.tolist()),
            insertion=tuple(insertion.tolist()),
            random=tuple(np.mean(random, axis=0).tolist()),
        )

    @property
    def deletion_area(self) -> float:
        """Area under the curve over the share of hidden super-pixels; low is good."""
        return area(self.deletion)

    @property
    def insertion_area(self) -> float:
        """Area under the curve over the share of shown super-pixels; high is good."""
        return area(self.insertion)

    @property
    def random_area(self) -> float:
        """What both areas would be if the explanation knew nothing."""
        return area(self.random)


def area(curve: tuple[float, ...]) -> float:
    """Return the area under a curve whose points are equally far apart, from 0 to 1."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def rank_correlation(one: Values, other: Values) -> float:
    """Return Spearman's correlation of two lists; 0 where one of them is constant."""
    ranks = np.stack([rankdata(one), rankdata(other)])
    if (ranks.std(axis=1) == 0).any():
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])


def _hiding(order: npt.NDArray[np.int64]) -> Members:
    """Return coalitions (M + 1, M): all shown, then one hidden after the other."""
    steps = np.arange(len(order) + 1)[:, None]
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places >= steps
