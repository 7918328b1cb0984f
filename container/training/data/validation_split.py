"""The split of a training channel when the job has no validation channel."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from container.classifier.channel import LabeledFile
from container.classifier.errors import UserError


def split(
    files: Sequence[LabeledFile], fraction: float, seed: int
) -> tuple[list[LabeledFile], list[LabeledFile]]:
    """Split off the same fraction of every class; equal seeds split equally.

    Returns:
        The files for training and for validation, both in the order of `files`.

    Raises:
        UserError: every class has a single image.
    """
    by_class: dict[str, list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        by_class[file.class_name].append(index)
    random = np.random.default_rng(seed)
    held_out: set[int] = set()
    for indices in by_class.values():
        # At least one for validation, but one must remain for training.
        count = min(max(1, round(len(indices) * fraction)), len(indices) - 1)
        held_out.update(random.permutation(indices)[:count].tolist())
    if not held_out:
        raise UserError("every class has a single image: too few to split off validation images")
    training = [file for index, file in enumerate(files) if index not in held_out]
    return training, [files[index] for index in sorted(held_out)]
