"""The model behind an endpoint: many images in, scores out, several requests at a time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from container.classifier.errors import UserError
from container.classifier.preprocessing import Pixels
from image_classifier.explainer import answers, bodies
from image_classifier.explainer.analysis import Predictor
from image_classifier.explainer.answers import Scores
from image_classifier.explainer.coalitions import Members
from image_classifier.explainer.endpoint import Endpoint, RefusedError
from image_classifier.explainer.image import SegmentedImage

# SageMaker's real-time endpoints took no more than 6 MB for most of their life.
MAX_BODY_BYTES = 5_000_000

# More at a time are no faster, and keep others waiting.
MAX_BATCH = 16

# Requests on their way at a time: two for each core of a small machine.
PARALLEL = 4


@dataclass(slots=True)
class Model:
    """A classifier that is asked over an endpoint."""

    endpoint: Endpoint
    predictor: Predictor
    parallel: int = PARALLEL
    class_names: tuple[str, ...] = ()
    """In the order of the scores; known once the model has been asked."""

    takes_many: bool = False
    """Whether one request may hold several images."""

    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        """Start no thread before there is work."""
        self._pool = ThreadPoolExecutor(self.parallel, thread_name_prefix="asking")

    def __enter__(self) -> Self:
        """Leave the block to end the threads."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop what is not sent yet, and wait for what is."""
        self._pool.shutdown(cancel_futures=True)

    def meet(self, pixels: Pixels) -> None:
        """Learn with an image what the classes are, and whether requests may hold several.

        Raises:
            UserError: the endpoint does not answer, or not with a score for each label.
        """
        first = self._ask(pixels[None])
        if len(first.rows) != 1:
            message = (
                f"{self.endpoint.name} answered one image with {len(first.rows)} lists of "
                "scores: set predictor.probability to the JMESPath of one"
            )
            raise UserError(message)
        self.class_names = _class_names(self.predictor.label_headers, first)
        if self.predictor.content_type in bodies.OF_MANY:
            try:
                self.takes_many = len(self._ask(np.stack([pixels, pixels])).rows) == 2  # noqa: PLR2004
            except RefusedError:
                self.takes_many = False

    def scores(
        self,
        image: SegmentedImage,
        members: Members,
        tell: Callable[[int], object] = lambda _count: None,
    ) -> npt.NDArray[np.float64]:
        """Return the scores (S, C) of an image's coalitions (S, M), in their order.

        A batch is masked by the thread that sends it: no more than `parallel` are in memory.

        Args:
            image: What is masked.
            members: Which super-pixels are shown.
            tell: Is called with the number of coalitions that have just been answered.

        Raises:
            UserError: the endpoint did not answer, or not as before.
        """
        size = self._batch_size(image.pixels.nbytes)
        parts = [members[start : start + size] for start in range(0, len(members), size)]

        def ask(part: Members) -> npt.NDArray[np.float64]:
            rows = self._ask(image.masked(part)).rows
            if rows.shape != (len(part), len(self.class_names)):
                message = (
                    f"{self.endpoint.name} answered {len(part)} images with {rows.shape[0]} "
                    f"lists of {rows.shape[1]} scores, expected {len(self.class_names)} in each"
                )
                raise UserError(message)
            return rows

        found = []
        for part, rows in zip(parts, self._pool.map(ask, parts), strict=True):
            found.append(rows)
            tell(len(part))
        return np.concatenate(found)

    def _batch_size(self, image_bytes: int) -> int:
        if not self.takes_many:
            return 1
        return max(1, min(MAX_BATCH, MAX_BODY_BYTES // image_bytes))

    def _ask(self, images: Pixels) -> Scores:
        content_type, accept = self.predictor.content_type, self.predictor.accept_type
        answer = self.endpoint.ask(bodies.encode(images, content_type), content_type, accept)
        return answers.parse(answer.body, answer.media_type, self.predictor.probability)


def _class_names(given: tuple[str, ...] | None, first: Scores) -> tuple[str, ...]:
    """Return the classes' names in the order of the scores."""
    count = first.rows.shape[1]
    names = given or first.class_names or tuple(f"class {number}" for number in range(count))
    if len(names) != count:
        message = (
            f"the endpoint gives {count} scores for the {len(names)} labels {', '.join(names)}"
        )
        raise UserError(message)
    if first.class_names is not None and first.class_names != names:
        message = (
            f"label_headers are {', '.join(names)}, but the endpoint's classes are "
            f"{', '.join(first.class_names)}, in this order: mend label_headers"
        )
        raise UserError(message)
    return names
