"""Handler that each TorchServe worker calls. The variable ARTIFACT names the model's folder."""

from collections.abc import Mapping, Sequence

from benchmarks.rivals.classifier import load

classify = load()


def handle(
    batch: Sequence[Mapping[str, bytes]] | None, context: object
) -> list[dict[str, float]] | None:
    """Predict a batch of requests."""
    del context
    return None if batch is None else [classify(bytes(row["body"])) for row in batch]
