"""What a training leaves behind: the artifact, metrics.json, plots and the report."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from container.classifier.manifest import FLOAT32, Manifest
from container.classifier.metric_lines import log_line
from container.classifier.preprocessing import Preprocessing
from container.training.data.images import ImageSet
from container.training.evaluation.assessment import Assessment, assess
from container.training.fitting.loop import Trainer
from container.training.output import grad_cam, plots, provenance, quantization, report
from container.training.output.export import write_artifact
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import Stop

REPORT = "report.html"

logger = logging.getLogger(__name__)


def write(
    environment: TrainingEnvironment,
    trainer: Trainer,
    *,
    class_names: tuple[str, ...],
    network: str,
    settings: Preprocessing,
    test: ImageSet | None,
    weights_source: str | None,
    stop: Stop,
    is_failed: bool = False,
    choices: Sequence[str] = (),
) -> Assessment | None:
    """Judge the best weights, write them as the artifact, in int8 too, and then the reports.

    A stopped job has little time: it writes what it knows. Of a failed one no search shall take a
    result: it logs none. `choices` are sentences about what the job chose by itself.

    Returns:
        The assessment; None of a job that was stopped in its first epoch.

    Raises:
        UserError: the disk is full.
    """
    best = trainer.keep_best_weights()
    judged = None
    if best is not None:
        judged = assess(
            trainer.classifier,
            trainer.arithmetic.device,
            best,
            validation=trainer.validation,
            test=test,
            stop=stop,
        )
        if not is_failed:
            _log(judged)
    is_wanted = trainer.hyperparameters.quantize == "auto"
    reason = quantization.UNTRIED if is_wanted else quantization.NOT_ASKED
    precision = {quantization.METRICS: quantization.verdict(FLOAT32, reason)}
    manifest = Manifest(
        class_names=class_names,
        network=network,
        preprocessing=settings,
        metrics={**judged.metrics(class_names), **precision} if judged else precision,
        temperature=judged.temperature if judged else 1.0,
        flips=tuple(map(tuple, trainer.classifier.flips)),
        provenance=provenance.of(trainer, test, weights_source),
    )
    write_artifact(environment.model_dir, manifest, trainer.classifier, trainer.validation.paths)
    if judged and judged.is_final and is_wanted:
        # Beside an artifact that is whole already: here a stop, or a lack of memory, may come.
        manifest = quantization.add_int8(
            environment.model_dir,
            manifest,
            training=trainer.training,
            validation=trainer.validation,
            predicted=judged.predicted,
            max_drop=trainer.hyperparameters.max_accuracy_drop,
            stop=stop,
        )
    if judged:
        try:
            _write_reports(environment.output_data_dir, trainer, judged, manifest, choices)
        except OSError as error:
            # The model is written, and worth more.
            logger.warning("not all reports are written: %s", error)
    return judged


def _log(judged: Assessment) -> None:
    # Once more, and last: a tuning job takes the last value it reads.
    said = judged.validation.evaluation.metrics()
    logger.info("%s", log_line({"best_epoch": judged.epoch, **said}))
    if calibration := judged.validation.calibration:
        errors = {"ece_before": calibration.before.error, "ece_after": calibration.after.error}
        logger.info("%s", log_line({"temperature": judged.temperature, **errors}))
    if judged.test:
        logger.info("%s", log_line(judged.test.evaluation.metrics("test")))


def _write_reports(
    directory: Path,
    trainer: Trainer,
    judged: Assessment,
    manifest: Manifest,
    choices: Sequence[str],
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    history, confusion = trainer.progress.history, judged.validation.evaluation.confusion
    document = {**manifest.metrics, "confusion": confusion.tolist(), "history": history}
    if judged.test:
        document["test_confusion"] = judged.test.evaluation.confusion.tolist()
    (directory / "metrics.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    figures = _draw(judged, history, manifest.class_names)
    for name, png in figures.items():
        (directory / f"{name}.png").write_bytes(png)
    page = report.render(
        manifest,
        judged,
        training=trainer.training,
        validation=trainer.validation,
        plots=figures,
        choices=choices,
        heat_maps=_heat_maps(trainer, judged),
    )
    # A file's name need not be UTF-8.
    (directory / REPORT).write_text(page, encoding="utf-8", errors="backslashreplace")


def _heat_maps(trainer: Trainer, judged: Assessment) -> npt.NDArray[np.float32] | None:
    """Return where the network looked in the images that it mistook, (N, S, S)."""
    if not judged.mistakes:
        return None
    places = [mistake.index for mistake in judged.mistakes]
    predicted = [mistake.predicted for mistake in judged.mistakes]
    try:
        return grad_cam.heat_maps(trainer.classifier, trainer.validation.pixels[places], predicted)
    except RuntimeError as error:
        # The gradient takes memory; the report is worth more.
        logger.warning("no heat maps of the mistakes: %s", error)
        return None


def _draw(
    judged: Assessment, history: Sequence[Mapping[str, float]], class_names: Sequence[str]
) -> dict[str, bytes]:
    """Return the plots as PNG, each under its file's name."""
    figures = {
        "learning_curves": plots.learning_curves(history, judged.epoch),
        "confusion_matrix": plots.confusion_matrix(
            judged.validation.evaluation.confusion, class_names
        ),
    }
    if judged.validation.calibration:
        figures["reliability"] = plots.reliability(judged.validation.calibration)
    return figures
