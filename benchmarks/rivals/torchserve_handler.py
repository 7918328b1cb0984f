"""TorchServe's side: what each of its workers calls. It finds the model through ARTIFACT."""

from collections.abc import Mapping, Sequence

from benchmarks.rivals.classifier import load

classify = load()


def handle(
    batch: Sequence[Mapping[str, bytes]] | None, context: object
) -> list[dict[str, float]] | None:
    """Predict a batch of requests."""
    del context
    return None if batch is None else [classify(bytes(row["body"])) for row in batch]
