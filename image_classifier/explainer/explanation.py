"""The explanation of one image: how it is found, and how it is kept."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from image_classifier.explainer import coalitions, shapley
from image_classifier.explainer.analysis import Analysis
from image_classifier.explainer.coalitions import Members
from image_classifier.explainer.faithfulness import Curves, rank_correlation
from image_classifier.explainer.image import SegmentedImage
from image_classifier.explainer.model import Model

Values = npt.NDArray[np.float64]

EXACT, KERNEL = "exact", "kernel"

# Probabilities of 0 and 1 have no log-odds.
LEAST_PROBABILITY = 1e-6


class Sanity(NamedTuple):
    """How much alike the explanations of the network and of a randomized one are."""

    correlation: float
    """Of the ranks of the predicted class's Shapley values; near 0 is sane."""

    absolute_correlation: float
    """Of the ranks of their sizes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What was found out about one image."""

    scores: tuple[float, ...]
    """Of the image, one a class."""

    expected: tuple[float, ...]
    """Of the baseline: what the Shapley values start from."""

    shapley: tuple[tuple[float, ...], ...]
    """A row for each super-pixel, of one value a class."""

    method: str
    """`exact` where all coalitions were asked for, else `kernel`."""

    evaluations: int
    """Masked images that the model has seen for it."""

    curves: Curves
    sanity: Sanity | None
    """None without a randomized model."""

    @property
    def predicted(self) -> int:
        """The class of the highest score."""
        return int(np.argmax(self.scores))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"sanity": self.sanity and self.sanity._asdict()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return what `to_json` was called on."""
        curves = {name: tuple(values) for name, values in document["curves"].items()}
        sanity = document["sanity"]
        return cls(
            scores=tuple(document["scores"]),
            expected=tuple(document["expected"]),
            shapley=tuple(map(tuple, document["shapley"])),
            method=document["method"],
            evaluations=document["evaluations"],
            curves=Curves(**curves),
            sanity=sanity and Sanity(**sanity),
        )


class Evaluations:
    """A model's scores for coalitions of one image, each asked for once."""

    def __init__(self, model: Model, image: SegmentedImage, tell: Callable[[int], object]) -> None:
        """Know nothing yet; `tell` is called with the number of new scores."""
        self._model, self._image, self._tell = model, image, tell
        self._rows: dict[bytes, Values] = {}

    def __call__(self, members: Members) -> Values:
        """Return the scores (S, C) of coalitions (S, M)."""
        keys = [row.tobytes() for row in members]
        new = {key: row for key, row in zip(keys, members, strict=True) if key not in self._rows}
        if new:
            found = self._model.scores(self._image, np.stack([*new.values()]), self._tell)
            self._rows.update(zip(new, found, strict=True))
        return np.stack([self._rows[key] for key in keys])

    def __len__(self) -> int:
        """Return how many coalitions were asked for."""
        return len(self._rows)


def explain(
    image: SegmentedImage,
    model: Model,
    analysis: Analysis,
    *,
    randomized: Model | None = None,
    tell: Callable[[int], object] = lambda _count: None,
) -> Explanation:
    """Explain a model's answer to an image; `tell` hears of every batch of evaluations.

    Raises:
        UserError: the model does not answer.
    """
    evaluate = Evaluations(model, image, tell)
    values, method = shapley_values(evaluate, image.count, analysis)
    ends = evaluate(np.stack([np.ones(image.count, bool), np.zeros(image.count, bool)]))
    predicted = int(ends[0].argmax())
    curves = Curves.of(evaluate, values, predicted, np.random.default_rng(analysis.seed))
    sanity = None
    if randomized is not None:
        other, _ = shapley_values(Evaluations(randomized, image, tell), image.count, analysis)
        one, other = values[:, predicted], other[:, predicted]
        sanity = Sanity(rank_correlation(one, other), rank_correlation(abs(one), abs(other)))
    return Explanation(
        scores=tuple(ends[0].tolist()),
        expected=tuple(ends[1].tolist()),
        shapley=tuple(map(tuple, values.tolist())),
        method=method,
        evaluations=len(evaluate),
        curves=curves,
        sanity=sanity,
    )


def shapley_values(
    evaluate: Callable[[Members], Values], segments: int, analysis: Analysis
) -> tuple[Values, str]:
    """Return Shapley values (M, C) and the method: exact where the samples suffice for that."""

    def valued(members: Members) -> Values:
        scores = evaluate(members)
        return _log_odds(scores) if analysis.use_logit else scores

    if 2**segments <= analysis.num_samples:
        return shapley.exact(valued(coalitions.every(segments))), EXACT
    rng = np.random.default_rng(analysis.seed)
    members, weights = coalitions.sample(segments, analysis.num_samples - 2, rng)
    ends = np.stack([np.zeros(segments, bool), np.ones(segments, bool)])
    empty, full, *values = valued(np.concatenate([ends, members]))
    return shapley.kernel(members, weights, np.stack(values), empty=empty, full=full), KERNEL


def _log_odds(scores: Values) -> Values:
    kept = scores.clip(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds: Values = np.log(kept / (1 - kept))
    return odds
