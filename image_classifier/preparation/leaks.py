"""How copies of training images bias the score of the other splits."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from image_classifier.preparation.duplicates import Indices
from image_classifier.preparation.labels import Labeled, split_names


@dataclass(frozen=True, slots=True)
class Leak:
    """Images of a split that are also in training."""

    split: str
    images: int
    """Number of images in the split."""

    copies: int
    """Those that are in training with the same label."""

    contradicted: int
    """Those that are in training only with another label."""

    @property
    def sentence(self) -> str:
        """The effect on the accuracy; empty if the split has no copies."""
        sentences = []
        if self.copies:
            share = 100 * self.copies / self.images
            at_90 = 10 * self.copies / max(self.images - self.copies, 1)
            sentences.append(
                f"{self.copies} of {self.images} {self.split} images ({share:.1f} %) are copies "
                "of training images with the same label, which a network can memorize: the "
                f"accuracy measured on {self.split} may be too high by up to {share:.1f} points "
                f"(by up to {min(at_90, share):.2f} if 90 % is measured)."
            )
        if self.contradicted:
            share = 100 * self.contradicted / self.images
            sentences.append(
                f"{self.contradicted} of {self.images} {self.split} images ({share:.1f} %) are "
                "copies of training images with another label: the accuracy measured on "
                f"{self.split} may be too low by up to {share:.1f} points."
            )
        return " ".join(sentences)


def find_leaks(images: Sequence[Labeled], copies: Indices) -> list[Leak]:
    """Compare every split with training.

    Args:
        images: N.
        copies: (N,): equal numbers for images that are the same.
    """
    trained: dict[int, set[str]] = defaultdict(set)
    held_out: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for image, cluster in zip(images, copies.tolist(), strict=True):
        if image.split == "train":
            trained[cluster].add(image.class_name)
        elif image.split is not None:
            held_out[image.split].append((cluster, image.class_name))
    leaks = []
    for split in split_names(images):
        if members := held_out.get(split):
            leaked = [name in trained[cluster] for cluster, name in members if cluster in trained]
            leaks.append(Leak(split, len(members), sum(leaked), len(leaked) - sum(leaked)))
    return leaks
