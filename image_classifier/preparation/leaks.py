"""What copies of training images do to the score."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from image_classifier.preparation.labels import Labeled, split_names


@dataclass(frozen=True, slots=True)
class Leak:
    """Images of a split that training has as well."""

    split: str
    images: int
    """Of the split, all of them."""

    copies: int
    """Those that training has with the same label."""

    contradicted: int
    """Those that training has with another label only."""

    @property
    def sentence(self) -> str:
        """What it does to the score."""
        words = []
        if self.copies:
            share = 100 * self.copies / self.images
            at_90 = 10 * self.copies / max(self.images - self.copies, 1)
            words.append(
                f"{self.copies} of {self.images} {self.split} images ({share:.1f} %) are "
                "copies of training images with the same label, which a network may know by "
                "heart: the "
                f"accuracy measured on {self.split} may be too high by up to {share:.1f} points "
                f"(by up to {min(at_90, share):.2f} where 90 % are measured)."
            )
        if self.contradicted:
            share = 100 * self.contradicted / self.images
            words.append(
                f"{self.contradicted} of {self.images} {self.split} images ({share:.1f} %) are "
                "copies of training images with another label: the accuracy measured on "
                f"{self.split} may be too low by up to {share:.1f} points."
            )
        return " ".join(words)


def leaks_of(images: Sequence[Labeled], copies: npt.NDArray[np.int64]) -> list[Leak]:
    """Judge every split but training by the copies (N,) of N images: equal numbers."""
    trained: dict[int, set[str]] = defaultdict(set)
    held_out: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for image, cluster in zip(images, copies.tolist(), strict=True):
        if image.split == "train":
            trained[cluster].add(image.class_name)
        elif image.split is not None:
            held_out[image.split].append((cluster, image.class_name))
    leaks = []
    for split in split_names(images):
        if asked := held_out.get(split):
            known = [(trained[cluster], name) for cluster, name in asked if cluster in trained]
            copies_there = sum(name in labels for labels, name in known)
            leaks.append(Leak(split, len(asked), copies_there, len(known) - copies_there))
    return leaks
