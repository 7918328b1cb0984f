"""The model behind an endpoint: scores of many images, with several requests in flight."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from container.classifier.errors import UserError
from container.classifier.preprocessing import Pixels
from image_classifier.explainer.analysis import Predictor
from image_classifier.explainer.endpoint import PARALLEL, Endpoint, RejectedError
from image_classifier.explainer.image import SegmentedImage
from image_classifier.explainer.payloads import BATCH_TYPES, Scores, encode_images, parse_scores
from image_classifier.explainer.shapley import Coalitions

# SageMaker's limit for real-time endpoints was 6 MB for most of the service's life.
MAX_BODY_BYTES = 5_000_000

# Larger batches are no faster, and delay other clients.
MAX_BATCH = 16


@dataclass(slots=True)
class Model:
    """A classifier behind an endpoint."""

    endpoint: Endpoint
    predictor: Predictor
    parallel: int = PARALLEL
    class_names: tuple[str, ...] = ()
    """In the order of the scores; empty before `probe`."""

    accepts_batches: bool = False
    """Whether one request can contain several images."""

    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        """Create the thread pool."""
        self._pool = ThreadPoolExecutor(self.parallel, thread_name_prefix="invocation")

    def __enter__(self) -> Self:
        """Return the model; the end of the block ends its threads."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Cancel requests that are not sent yet, and wait for the others."""
        self._pool.shutdown(cancel_futures=True)

    def probe(self, pixels: Pixels) -> None:
        """Find out with an image the class names, and whether requests can contain several images.

        Raises:
            UserError: the endpoint fails, or responds without one score per label.
        """
        first = self._invoke(pixels[None])
        if len(first.rows) != 1:
            raise UserError(
                f"{self.endpoint.name} responded to one image with {len(first.rows)} lists of "
                "scores: set predictor.probability to the JMESPath of one"
            )
        self.class_names = _class_names(self.predictor.label_headers, first)
        if self.predictor.content_type in BATCH_TYPES:
            try:
                rows = self._invoke(np.stack([pixels, pixels])).rows
                self.accepts_batches = len(rows) == 2  # noqa: PLR2004
            except RejectedError:
                self.accepts_batches = False

    def scores(
        self,
        image: SegmentedImage,
        coalitions: Coalitions,
        on_progress: Callable[[int], object] = lambda _count: None,
    ) -> npt.NDArray[np.float64]:
        """Return the scores (S, C) of an image's coalitions (S, M), in their order.

        The thread that sends a batch also masks it, so at most `parallel` batches are in memory.
        `on_progress` is called with the number of coalitions of each response.

        Raises:
            UserError: the endpoint fails, or its responses differ from the first one.
        """
        size = 1
        if self.accepts_batches:
            size = max(1, min(MAX_BATCH, MAX_BODY_BYTES // image.pixels.nbytes))
        batches = [coalitions[start : start + size] for start in range(0, len(coalitions), size)]

        def invoke(batch: Coalitions) -> npt.NDArray[np.float64]:
            rows = self._invoke(image.mask(batch)).rows
            if rows.shape != (len(batch), len(self.class_names)):
                raise UserError(
                    f"{self.endpoint.name} responded to {len(batch)} images with {rows.shape[0]} "
                    f"lists of {rows.shape[1]} scores, expected {len(self.class_names)} in each"
                )
            return rows

        scores = []
        for rows in self._pool.map(invoke, batches):
            scores.append(rows)
            on_progress(len(rows))
        return np.concatenate(scores)

    def _invoke(self, images: Pixels) -> Scores:
        content_type, accept = self.predictor.content_type, self.predictor.accept_type
        body = encode_images(images, content_type)
        response, media_type = self.endpoint.invoke(body, content_type, accept)
        return parse_scores(response, media_type, self.predictor.probability)


def _class_names(label_headers: tuple[str, ...] | None, first: Scores) -> tuple[str, ...]:
    """Return the class names in the order of the scores."""
    count = first.rows.shape[1]
    numbered = tuple(f"class {number}" for number in range(count))
    names = label_headers or first.class_names or numbered
    if len(names) != count:
        raise UserError(
            f"the endpoint returns {count} scores for {len(names)} labels: {', '.join(names)}"
        )
    if first.class_names is not None and first.class_names != names:
        raise UserError(
            f"label_headers are {', '.join(names)}, but the endpoint's classes are "
            f"{', '.join(first.class_names)}, in this order: fix label_headers"
        )
    return names
