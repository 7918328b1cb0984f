"""An analysis of many images; every result is written as soon as it is complete.

A run with the same settings continues after the results that exist.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from container.classifier import image_files
from container.classifier.checked_files import sha256_of
from container.classifier.class_folders import listed
from container.classifier.errors import UserError
from container.classifier.media_types import IMAGE_SUFFIXES
from container.classifier.preprocessing import Pixels
from image_classifier.explainer import image as images
from image_classifier.explainer import report, results
from image_classifier.explainer.analysis import Analysis
from image_classifier.explainer.explanation import explain
from image_classifier.explainer.image import SegmentedImage
from image_classifier.explainer.model import Model
from image_classifier.explainer.report import Summary
from image_classifier.explainer.results import FOLDER, Result

ANALYSIS = "analysis.json"

# Version of the result files; results of another version are computed again.
FORMAT_VERSION = 2

# The scores of a server differ slightly between precisions.
SCORE_TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The inputs of one analysis."""

    images: Sequence[Path]
    """Files, or one folder whose images are explained at any depth."""

    output: Path
    analysis: Analysis
    model: Model

    randomized: Model | None = None
    """The same network with random weights, for the sanity check."""

    is_quiet: bool = False

    def run(self) -> Summary:
        """Explain every image, then write analysis.json and the report.

        Raises:
            UserError: no image can be read, the model fails, or the disk is full.
        """
        files, unused = find_images(self.images, self.output)
        try:
            unreadable = {**unused, **self._explain_all(files)}
            explained = {name: path for name, path in files.items() if name not in unreadable}
            if not explained:
                name, why = next(iter(unreadable.items()))
                raise UserError(f"none of {len(files)} images can be read; {name}: {why}")
            return self._write_summary(explained, unreadable)
        except OSError as error:
            raise UserError(f"cannot write into {self.output}: {error.strerror}") from error

    def _explain_all(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Explain images; return those that cannot be read, with the reasons."""
        path = self.analysis.shap.baseline
        baseline = None if path is None else _read_baseline(path)
        unreadable = {}
        # None: draw the bar only on a terminal.
        with tqdm(files.items(), unit="image", disable=True if self.is_quiet else None) as bar:
            for name, path in bar:
                try:
                    pixels = images.read(path)
                except UserError as error:
                    unreadable[name] = str(error)
                    continue
                self._probe_models(pixels)
                image = images.segment(pixels, self.analysis.shap, baseline)
                self._explain(path, name, image, bar)
        return unreadable

    def _explain(
        self, path: Path, name: str, image: SegmentedImage, bar: "tqdm[tuple[str, Path]]"
    ) -> None:
        """Explain one image, unless a result of the same settings and model exists."""
        mark = self._mark(path)
        existing = results.read(self.output, name, path)
        if existing is not None and existing.mark == mark and self._is_same_model(image, existing):
            return
        evaluations = 0

        def on_progress(count: int) -> None:
            nonlocal evaluations
            evaluations += count
            bar.set_postfix_str(f"{evaluations} evaluations")

        explanation = explain(
            image,
            self.model,
            self.analysis.shap,
            randomized=self.randomized,
            on_progress=on_progress,
        )
        Result(
            file=name,
            image=path,
            output=self.output,
            mark=mark,
            class_names=self.model.class_names,
            explanation=explanation,
        ).write(image)

    def _is_same_model(self, image: SegmentedImage, existing: Result) -> bool:
        """Check with one request: the endpoint of that name may have got another model."""
        scores = self.model.scores(image, np.ones((1, image.segment_count), dtype=bool))[0]
        return np.allclose(scores, existing.explanation.scores, rtol=0, atol=SCORE_TOLERANCE)

    def _mark(self, path: Path) -> str:
        """Return a hash of everything an explanation depends on, except the model's weights."""
        baseline = self.analysis.shap.baseline
        inputs = {
            "format": FORMAT_VERSION,
            "analysis": self.analysis.model_dump(mode="json"),
            "baseline": baseline and sha256_of(baseline),
            "model": self.model.endpoint.name,
            "class_names": self.model.class_names,
            "randomized": self.randomized and self.randomized.endpoint.name,
            "image": sha256_of(path),
        }
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()

    def _probe_models(self, pixels: Pixels) -> None:
        """Probe the models with the first image that can be read."""
        for model in (self.model, self.randomized):
            if model is not None and not model.class_names:
                model.probe(pixels)
        if self.randomized and self.randomized.class_names != self.model.class_names:
            raise UserError(
                f"{self.randomized.endpoint.name} has the classes "
                f"{', '.join(self.randomized.class_names)}, the model "
                f"{', '.join(self.model.class_names)}: serve the same network with random weights"
            )

    def _read_results(self, files: Mapping[str, Path]) -> Iterator[Result]:
        """Yield the results, with one in memory at a time."""
        for name, path in files.items():
            result = results.read(self.output, name, path)
            if result is None:
                raise UserError(
                    f"{self.output / FOLDER / name} was changed: run the same command again"
                )
            yield result

    def _write_summary(self, files: Mapping[str, Path], unreadable: Mapping[str, str]) -> Summary:
        """Write analysis.json and the report."""
        summary = Summary.of(self._read_results(files), unreadable)
        with results.replacing(self.output / ANALYSIS) as file:
            local_values = self.analysis.shap.save_local_shap_values
            summary.write_json(file, self._read_results(files), local_values=local_values)
        report_name = f"{self.analysis.methods.report.name}.html"
        with results.replacing(self.output / report_name) as file:
            report.write_page(
                file,
                self.analysis,
                summary,
                self._read_results(files),
                endpoint=self.model.endpoint.name,
                data=listed([str(path) for path in self.images]),
            )
        return summary


def find_images(images: Sequence[Path], output: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the images in a folder by their relative paths, sorted; or files by their names.

    Returns:
        The images, and the files that are not used with the reasons.

    Raises:
        UserError: no image was found, or one of several is not a file.
    """
    if len(images) == 1 and not images[0].is_file():
        return _find_in_folder(images[0], output)
    found: dict[str, Path] = {}
    for path in images:
        if not path.is_file():
            raise UserError(f"{path} is not a file: name images, or a single folder")
        name, number = path.name, 2
        while name in found:
            # Another folder has an image of this name.
            name, number = f"{path.stem}-{number}{path.suffix}", number + 1
        found[name] = path
    return found, {}


def _find_in_folder(folder: Path, output: Path) -> tuple[dict[str, Path], dict[str, str]]:
    names, unused = image_files.find_images(folder)
    # The heat maps of an earlier run.
    earlier = (output / FOLDER).resolve()
    found = {
        name: folder / name
        for name in names
        if not (folder / name).resolve().is_relative_to(earlier)
    }
    if not found:
        missing = "no images in" if folder.is_dir() else "there is no"
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{missing} {folder}: expected an image, or a folder with {suffixes} in it")
    results_of_runs = output.resolve()
    return found, {
        item.name: item.reason
        for item in unused
        if not (folder / item.name).resolve().is_relative_to(results_of_runs)
    }


def _read_baseline(path: Path) -> Pixels:
    try:
        return images.read(path)
    except UserError as error:
        raise UserError(f"the baseline {path} is not an image: {error}") from error
