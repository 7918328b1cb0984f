"""An analysis of many images: one folder of results, written image by image.

What is finished stays, and the next run with the same settings continues from there.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from container.classifier.errors import UserError
from container.classifier.preprocessing import Pixels
from container.classifier.vocabulary import IMAGE_SUFFIXES
from image_classifier.explainer import image as images
from image_classifier.explainer import report, results, summary
from image_classifier.explainer.analysis import Analysis
from image_classifier.explainer.explanation import explain
from image_classifier.explainer.image import SegmentedImage
from image_classifier.explainer.model import Model
from image_classifier.explainer.results import Result
from image_classifier.explainer.summary import Finished, Summary, Unreadable

FOLDER = "explanations_shap"
ANALYSIS = "analysis.json"

# Of what the folder of an image holds; another one is explained again.
FORMAT_VERSION = 1

# A server that computes in another precision answers a little differently.
SAME_SCORES = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is to be done."""

    images: Path
    """A folder, at any depth, or one file."""

    output: Path
    analysis: Analysis
    model: Model

    randomized: Model | None = None
    """The same network with random weights, for the sanity check."""

    is_quiet: bool = False

    def run(self) -> Summary:
        """Explain every image, then write analysis.json and the report.

        Raises:
            UserError: there is no image, or the model does not answer, or the disk is full.
        """
        files = find(self.images, self.output)
        unreadable: list[Unreadable] = []
        try:
            finished = [name for name, _ in self._explain_all(files, unreadable)]
            if not finished:
                why = f"{unreadable[0].file}: {unreadable[0].why}"
                message = f"none of {len(files)} images can be read; {why}"
                raise UserError(message)
            return self._conclude(finished, unreadable)
        except OSError as error:
            message = f"cannot write into {self.output}: {error.strerror}"
            raise UserError(message) from error

    def _explain_all(
        self, files: dict[str, Path], unreadable: list[Unreadable]
    ) -> Iterator[tuple[str, Result]]:
        """Yield every image that can be read once it is explained."""
        path = self.analysis.baseline
        baseline = None if path is None else _baseline(path)
        # Drawn where a person looks on, and nowhere else.
        disable = True if self.is_quiet else None
        with tqdm(files.items(), unit="image", disable=disable) as bar:
            for name, path in bar:
                try:
                    pixels = images.read(path)
                except UserError as error:
                    unreadable.append(Unreadable(name, str(error)))
                    continue
                self._meet(pixels)
                yield name, self._explain(path, name, pixels, baseline, bar)

    def _explain(
        self,
        path: Path,
        name: str,
        pixels: Pixels,
        baseline: Pixels | None,
        bar: "tqdm[tuple[str, Path]]",
    ) -> Result:
        """Explain one image, unless the same model did so before."""
        segments = images.superpixels(
            pixels, self.analysis.num_segments, self.analysis.segment_compactness
        )
        hidden = images.noise(pixels, self.analysis.seed)
        if baseline is not None:
            hidden = images.resized(baseline, pixels)
        shown = SegmentedImage(pixels, segments, hidden)
        folder, mark = self.output / FOLDER / name, self._mark(path)
        before = results.read(folder)
        if before is not None and before.mark == mark and self._is_same_model(shown, before):
            return before
        evaluations = 0

        def tell(count: int) -> None:
            nonlocal evaluations
            evaluations += count
            bar.set_postfix_str(f"{evaluations} evaluations")

        found = explain(shown, self.model, self.analysis, randomized=self.randomized, tell=tell)
        return results.write(folder, shown, found, self.model.class_names, mark)

    def _is_same_model(self, shown: SegmentedImage, before: Result) -> bool:
        """Ask once: behind an address there may be another model by now."""
        scores = self.model.scores(shown, np.ones((1, shown.count), dtype=bool))[0]
        return np.allclose(scores, before.explanation.scores, rtol=0, atol=SAME_SCORES)

    def _mark(self, path: Path) -> str:
        """Return what tells an explanation from any other, but for the model's weights."""
        baseline = self.analysis.baseline
        settings = {
            "format": FORMAT_VERSION,
            "analysis": asdict(self.analysis),
            "baseline": baseline and hashlib.sha256(baseline.read_bytes()).hexdigest(),
            "model": self.model.endpoint.name,
            "class_names": self.model.class_names,
            "randomized": self.randomized and self.randomized.endpoint.name,
            "image": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        return hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()

    def _meet(self, pixels: Pixels) -> None:
        """Get to know the models by the first image that can be read."""
        for model in (self.model, self.randomized):
            if model is not None and not model.class_names:
                model.meet(pixels)
        if self.randomized and self.randomized.class_names != self.model.class_names:
            message = (
                f"{self.randomized.endpoint.name} has the classes "
                f"{', '.join(self.randomized.class_names)}, the model "
                f"{', '.join(self.model.class_names)}: it must be the same network with random "
                "weights"
            )
            raise UserError(message)

    def _finished(self, names: Sequence[str]) -> Iterator[Finished]:
        """Yield what was found out, one image in memory at a time."""
        for name in names:
            folder = self.output / FOLDER / name
            result = results.read(folder)
            if result is None:
                message = f"{folder} was changed meanwhile: run the same command again"
                raise UserError(message)
            yield Finished(
                file=name,
                folder=folder,
                root=self.output,
                result=result,
                class_names=self.model.class_names,
            )

    def _conclude(self, names: Sequence[str], unreadable: Sequence[Unreadable]) -> Summary:
        """Write analysis.json and the report."""
        found = Summary.of(self._finished(names), unreadable)
        local_values = self.analysis.save_local_shap_values
        with (
            results.replacing(self.output / ANALYSIS) as partial,
            partial.open("w", encoding="utf-8") as file,
        ):
            summary.write(file, found, self._finished(names), local_values=local_values)
        with (
            results.replacing(self.output / f"{self.analysis.report_name}.html") as partial,
            # Names of files need not be text.
            partial.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            report.write(
                file, self.analysis, found, self._finished(names), self.model.endpoint.name
            )
        return found


def find(images: Path, output: Path) -> dict[str, Path]:
    """Return the images in a folder by their names in it, sorted; or the one of a file.

    Raises:
        UserError: there is none.
    """
    if images.is_file():
        return {images.name: images}
    found = {
        path.relative_to(images).as_posix(): path
        for path in sorted(images.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        # What desktops and archives leave behind, and our own heat maps.
        and not any(part.startswith(".") for part in path.relative_to(images).parts)
        and not path.resolve().is_relative_to((output / FOLDER).resolve())
    }
    if not found:
        there = "no images in" if images.is_dir() else "there is no"
        message = f"{there} {images}: expected an image, or a folder with {_listed()} in it"
        raise UserError(message)
    return found


def _baseline(path: Path) -> Pixels:
    try:
        return images.read(path)
    except UserError as error:
        message = f"shap.baseline {path} is no image: {error}"
        raise UserError(message) from error


def _listed() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
