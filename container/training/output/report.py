"""The report of a training: one page without scripts and without external files."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from container.classifier.checked_files import Json
from container.classifier.manifest import Manifest
from container.classifier.preprocessing import Pixels
from container.classifier.report_page import RAISES, data_uri, template
from container.training.data.images import ImageSet
from container.training.evaluation.assessment import Assessment, Outcome
from container.training.evaluation.evaluation import confused_classes
from container.training.output import quantization

TEMPLATE = Path(__file__).with_name("report.html.jinja")

# In pixels; twice the displayed size, for high-density screens.
THUMBNAIL_SIZE = 320

# With more classes, the worst come first, and a table lists the most confused pairs.
FEW_CLASSES = 20
MAX_CONFUSED_PAIRS = 20


def render(
    manifest: Manifest,
    assessment: Assessment,
    *,
    training: ImageSet,
    validation: ImageSet,
    plots: Mapping[str, bytes],
    choices: Sequence[str],
    heat_maps: npt.NDArray[np.float32] | None,
) -> str:
    """Return the page.

    `plots` are PNG files by name, `choices` sentences about values that the job chose. The Grad-CAM
    `heat_maps` of the mistakes are of shape (N, S, S), 0 to 1.
    """
    # The test images are independent, so their channel comes first.
    outcomes = {"test": assessment.test, "validation": assessment.validation}
    counts = np.bincount(training.labels, minlength=len(manifest.class_names))
    settings = _flat(manifest.provenance["hyperparameters"])
    if settings.get("max_minutes") is not None:
        settings["epochs"] = "not used with max_minutes"
    return template(TEMPLATE).render(
        facts=_facts(manifest, outcomes, int(counts.sum())),
        manifest=manifest,
        assessment=assessment,
        min_accuracy=settings["min_accuracy"],
        quantization=manifest.metrics[quantization.METRICS],
        channels=[
            _channel(name, outcome, manifest.class_names)
            for name, outcome in outcomes.items()
            if outcome
        ],
        few_classes=FEW_CLASSES,
        training_images=dict(zip(manifest.class_names, counts.tolist(), strict=True)),
        mistakes=_mistakes(assessment, validation, manifest.class_names, heat_maps),
        plots={name: data_uri(png, "png") for name, png in plots.items()},
        choices=choices,
        hyperparameters=settings,
        provenance=_flat({**manifest.provenance, "hyperparameters": {}}),
    )


def confused_pairs(
    confusion: npt.NDArray[np.int64], class_names: Sequence[str]
) -> list[tuple[str, str, int, float]]:
    """Return the most frequent mistakes.

    Each is the true and the predicted class, their number of images, and the fraction of the true
    class's images.
    """
    return [
        (class_names[true], class_names[predicted], images, images / int(confusion[true].sum()))
        for true, predicted, images in confused_classes(confusion)[:MAX_CONFUSED_PAIRS]
    ]


def _facts(
    manifest: Manifest, outcomes: Mapping[str, Outcome | None], training: int
) -> dict[str, str]:
    """Return the job and the data, for the top of the page."""
    evaluated = {name: outcome.evaluation for name, outcome in outcomes.items() if outcome}
    images = {"training": training} | {n: int(e.confusion.sum()) for n, e in evaluated.items()}
    counts = ", ".join(f"{count:,} {name} images" for name, count in images.items())
    return {
        "Training job": str(manifest.provenance.get("training_job_name") or "on this machine"),
        "Data": f"{len(manifest.class_names):,} classes, {counts}",
    }


def _channel(name: str, outcome: Outcome, class_names: Sequence[str]) -> dict[str, object]:
    confusion, counts = outcome.evaluation.confusion, outcome.evaluation.counts
    classes, calibration = outcome.per_class(class_names), outcome.calibration
    if len(class_names) > FEW_CLASSES:
        classes = dict(sorted(classes.items(), key=lambda item: float(item[1]["f1"])))
    return {
        "name": name,
        "images": int(counts.actual.sum()),
        "correct": int(confusion.trace()),
        "loss": outcome.evaluation.loss,
        "averages": counts.averages(),
        "intervals": outcome.intervals.averages,
        "calibration": calibration,
        "calibration_images": calibration.image_count if calibration else 0,
        "classes": classes,
        "confused": confused_pairs(confusion, class_names),
        "largest_class": class_names[int(counts.actual.argmax())],
        "largest_fraction": counts.actual.max() / counts.actual.sum(),
    }


def _mistakes(
    assessment: Assessment,
    validation: ImageSet,
    class_names: Sequence[str],
    heat_maps: npt.NDArray[np.float32] | None,
) -> list[dict[str, object]]:
    folder = os.path.commonpath([path.parent for path in validation.paths])
    return [
        {
            "image": _thumbnail(validation.pixels[mistake.index]),
            "heat_map": None
            if heat_maps is None
            else _thumbnail(_with_heat_map(validation.pixels[mistake.index], heat_maps[number])),
            "file": os.path.relpath(validation.paths[mistake.index], folder),
            "true": class_names[mistake.label],
            "predicted": class_names[mistake.predicted],
            "probability": mistake.probability,
            "is_label_issue": mistake.is_label_issue,
        }
        for number, mistake in enumerate(assessment.mistakes)
    ]


def _with_heat_map(pixels: Pixels, heat_map: npt.NDArray[np.float32]) -> Pixels:
    """Return an image in gray with the heat map in red, as in the explanations."""
    gray = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)[..., None]
    # Pale, so that the color is visible.
    background = 0.55 * gray + 0.45 * 255
    opacity = 0.8 * heat_map[..., None]
    mixed: Pixels = (
        ((1 - opacity) * background + opacity * np.array(RAISES)).round().astype(np.uint8)
    )
    return mixed


def _thumbnail(pixels: Pixels) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return data_uri(file.getvalue(), "jpeg")


def _flat(values: Json) -> dict[str, Json]:
    """Return the values of a dictionary and of those within it, by name."""
    flat: dict[str, Json] = {}
    for name, value in values.items() if isinstance(values, dict) else ():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
