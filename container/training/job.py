"""A training job from its channels to its artifact."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from classifier.artifact import MANIFEST, Json, Manifest
from classifier.errors import UserError
from classifier.preprocessing import Preprocessing
from training import (
    augmentation,
    channel,
    cluster,
    network,
    pictures,
    plots,
    provenance,
    recipe,
    weights,
)
from training.environment import Channels, TrainingEnvironment
from training.evaluation import per_class
from training.export import write_artifact
from training.hyperparameters import Hyperparameters
from training.loop import Trainer
from training.network import Network
from training.pictures import Pictures
from training.progress import Best
from training.stop import StopRequest

logger = logging.getLogger(__name__)

# Batch normalisation alone takes dozens to know the mean of what it sees.
FEW_STEPS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a job has to learn, read and checked."""

    hyperparameters: Hyperparameters
    settings: Preprocessing
    class_names: tuple[str, ...]
    network: Network
    weights_source: str | None
    """Which pretrained weights the network has."""
    training: Pictures
    validation: Pictures


def run(environment: TrainingEnvironment, stop: StopRequest) -> None:
    """Train as the job's files say, and write the artifact and the reports.

    Raises:
        UserError: something is wrong that the user can mend.
        Stopped: a stop was requested before there was anything to save.
    """
    # Before the pictures are read: a process that cannot go on then takes the others along at once.
    with cluster.joined(environment.hosts(), stop) as joined:
        task = _read_task(environment, joined.world_size, stop)
        stop.check()
        joined.check_equal(
            repr((task.class_names, task.training.sha256, task.validation.sha256)),
            "the hosts hold different pictures: every channel must be FullyReplicated, "
            "not ShardedByS3Key",
        )
        trainer = Trainer(
            task.network,
            task.training,
            task.validation,
            task.hyperparameters,
            pretrained=task.weights_source is not None,
            num_classes=len(task.class_names),
            arithmetic=recipe.arithmetic(task.hyperparameters.precision),
            cluster=joined,
        )
        _log_recipe(trainer, task)
        fingerprint = provenance.fingerprint(trainer, task.weights_source)
        # Neither a loss that is no number any more nor a stop in the first epoch may cost the
        # artifact of a run that went well.
        is_free = not (environment.model_dir / MANIFEST).exists()
        try:
            trainer.train(stop, environment.checkpoint_dir, fingerprint)
        except Exception:
            if joined.is_first and is_free and trainer.progress.best is not None:
                _write(environment, trainer, task)
            raise
        if joined.is_first and (is_free or trainer.progress.best is not None):
            _write(environment, trainer, task)


def _read_task(environment: TrainingEnvironment, processes: int, stop: StopRequest) -> Task:
    hyperparameters = Hyperparameters.from_strings(environment.hyperparameters())
    logger.info("%s", _in_words(hyperparameters))
    channels = environment.channels()
    settings = Preprocessing(image_size=recipe.image_size(hyperparameters))
    class_names, files = _find_files(channels, hyperparameters)
    torch.manual_seed(hyperparameters.seed)
    net = network.build(hyperparameters.network, len(class_names))
    weights_source = _load_weights(net, channels, hyperparameters)

    def check_batches(count: int) -> None:
        share = recipe.smallest_share(count, hyperparameters.batch_size, processes)
        network.check_input(net, share * processes, settings.image_size)

    # Before the pictures: a wrong name or size fails in a second, not after minutes of decoding.
    check_batches(len(files[0]))
    training = pictures.decode(files[0], class_names, settings, stop)
    validation = pictures.decode(files[1], class_names, settings, stop)
    _check_data(class_names, training, validation)
    # Again, without the broken ones.
    check_batches(len(training))
    return Task(
        hyperparameters=hyperparameters,
        settings=settings,
        class_names=class_names,
        network=net,
        weights_source=weights_source,
        training=training,
        validation=validation,
    )


def _find_files(
    channels: Channels, hyperparameters: Hyperparameters
) -> tuple[tuple[str, ...], tuple[list[channel.LabelledFile], list[channel.LabelledFile]]]:
    """Return the class names, and the files for training and for validation."""
    if channels.unused:
        logger.warning("channels not used: %s", ", ".join(channels.unused))
    files = channel.labelled_files(channels.training)
    class_names = channel.class_names_of(files)
    flips = hyperparameters.horizontal_flip or hyperparameters.vertical_flip
    if flips and (pairs := augmentation.mirrored_classes(class_names)):
        logger.warning(
            "flips are on, and classes look like left and right (%s): a flip makes one of the "
            "other; set horizontal_flip=false vertical_flip=false",
            ", ".join(f"{left}/{right}" for left, right in pairs[:5]),
        )
    if channels.validation is None:
        fraction, seed = hyperparameters.validation_fraction, hyperparameters.seed
        return class_names, channel.split(files, fraction, seed)
    held_out = channel.labelled_files(channels.validation)
    channel.check_validation(held_out, class_names)
    return class_names, (files, held_out)


def _load_weights(
    net: network.Network, channels: Channels, hyperparameters: Hyperparameters
) -> str | None:
    """Load pretrained weights where the job has any; return which."""
    if channels.weights is not None:
        if hyperparameters.pretrained is False:
            message = "pretrained=false, and yet there is a `weights` channel: drop one of them"
            raise UserError(message)
        return weights.load_channel(net, channels.weights)
    return weights.download(net) if recipe.wants_download(hyperparameters) else None


def _check_data(class_names: tuple[str, ...], training: Pictures, validation: Pictures) -> None:
    shown = ", ".join(class_names[:20]) + (", ..." if len(class_names) > 20 else "")  # noqa: PLR2004
    logger.info("classes=%d (%s)", len(class_names), shown)
    logger.info("training_pictures=%d validation_pictures=%d", len(training), len(validation))
    seen = set(training.labels.tolist())
    if lost := [name for label, name in enumerate(class_names) if label not in seen]:
        message = f"no picture of the class {lost[0]!r} can be read"
        raise UserError(message)


def _log_recipe(trainer: Trainer, task: Task) -> None:
    """Say what the hyperparameters that were left open have become."""
    logger.info(
        "arithmetic=%s processes=%d image_size=%d pretrained=%s learning_rate=%g steps=%d",
        trainer.arithmetic,
        trainer.cluster.world_size,
        task.settings.image_size,
        task.weights_source is not None,
        trainer.peak,
        trainer.total_steps,
    )
    if trainer.total_steps < FEW_STEPS:
        logger.warning(
            "%d steps are few to learn from: lower batch_size or raise epochs", trainer.total_steps
        )


def _write(environment: TrainingEnvironment, trainer: Trainer, task: Task) -> None:
    best = trainer.keep_best_weights()
    manifest = Manifest(
        class_names=task.class_names,
        network=task.network.name,
        preprocessing=task.settings,
        metrics=_metrics(best, task.class_names),
        provenance=provenance.of(trainer),
    )
    write_artifact(environment.model_dir, manifest, trainer.classifier, trainer.validation.paths)
    if best is None:
        return
    try:
        _write_reports(environment.output_data_dir, trainer, best, manifest)
    except OSError as error:
        # The model is written, and worth more.
        logger.warning("not all reports are written: %s", error)


def _write_reports(directory: Path, trainer: Trainer, best: Best, manifest: Manifest) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    history, confusion = trainer.progress.history, best.evaluation.confusion
    report = {**manifest.metrics, "confusion": confusion.tolist(), "history": history}
    (directory / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plots.learning_curves(directory / "learning_curves.png", history)
    plots.confusion_matrix(directory / "confusion_matrix.png", confusion, manifest.class_names)


def _metrics(best: Best | None, class_names: tuple[str, ...]) -> dict[str, Json]:
    if best is None:
        return {}
    return {
        "epoch": best.epoch,
        **best.evaluation.metrics(),
        "val_accuracy_interval_95": list(best.evaluation.accuracy_interval()),
        "classes": per_class(best.evaluation.confusion, class_names),
    }


def _in_words(hyperparameters: Hyperparameters) -> str:
    values = dataclasses.asdict(hyperparameters).items()
    return "hyperparameters: " + " ".join(f"{name}={value}" for name, value in values)
