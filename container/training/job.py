"""A training job from its channels to its artifact."""

import dataclasses
import hashlib
import json
import logging
import os
import platform
from importlib import metadata

import torch

from classifier.artifact import MANIFEST, Json, Manifest
from classifier.errors import UserError
from classifier.preprocessing import Preprocessing
from training import augmentation, channel, cluster, network, pictures, plots, recipe, weights
from training.environment import Channels, TrainingEnvironment
from training.evaluation import per_class
from training.export import write_artifact
from training.hyperparameters import Hyperparameters
from training.loop import Trainer
from training.pictures import Pictures
from training.progress import Best
from training.stop import StopRequest

logger = logging.getLogger(__name__)

# Batch normalisation alone takes dozens to know the mean of what it sees.
FEW_STEPS = 100


def run(environment: TrainingEnvironment, stop: StopRequest) -> None:
    """Train as the job's files say, and write the artifact and the reports.

    Raises:
        UserError: something is wrong that the user can mend.
        Stopped: a stop was requested before there was anything to save.
    """
    hyperparameters = Hyperparameters.from_strings(environment.hyperparameters())
    logger.info("%s", _in_words(hyperparameters))
    channels = environment.channels()
    if channels.unused:
        logger.warning("channels not used: %s", ", ".join(channels.unused))
    settings = Preprocessing(image_size=recipe.image_size(hyperparameters))
    # Before the pictures: a wrong name or file fails in a second, not after minutes of decoding.
    hosts = environment.hosts()
    class_names, files = _find_files(channels, hyperparameters)
    torch.manual_seed(hyperparameters.seed)
    net = network.build(hyperparameters.network, len(class_names))
    pretrained = _load_weights(net, channels, hyperparameters)
    share = recipe.smallest_share(len(files[0]), hyperparameters.batch_size, len(hosts.names))
    network.check_input(net, share, settings.image_size)
    training = pictures.decode(files[0], class_names, settings, stop)
    validation = pictures.decode(files[1], class_names, settings, stop)
    _log_data(class_names, training, validation)
    stop.check()
    with cluster.joined(hosts) as joined:
        trainer = Trainer(
            net,
            training,
            validation,
            hyperparameters,
            pretrained=pretrained,
            num_classes=len(class_names),
            arithmetic=recipe.arithmetic(hyperparameters.precision),
            cluster=joined,
        )
        _log_recipe(trainer, settings, pretrained=pretrained)
        fingerprint = _fingerprint(hyperparameters, training, validation)
        try:
            trainer.train(stop, environment.checkpoint_dir, fingerprint)
        except Exception:
            # A loss that is no number any more: the best epoch so far is worth keeping, but not at
            # the cost of the artifact of a run that went well.
            is_free = not (environment.model_dir / MANIFEST).exists()
            if joined.is_first and trainer.progress.best is not None and is_free:
                _write(environment, trainer, settings, class_names)
            raise
        if joined.is_first:
            _write(environment, trainer, settings, class_names)


def _find_files(
    channels: Channels, hyperparameters: Hyperparameters
) -> tuple[tuple[str, ...], tuple[list[channel.LabelledFile], list[channel.LabelledFile]]]:
    """Return the class names, and the files for training and for validation."""
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
) -> bool:
    """Load pretrained weights where the job has any; return whether it has."""
    if channels.weights is not None:
        if hyperparameters.pretrained is False:
            message = "pretrained=false, and yet there is a `weights` channel: drop one of them"
            raise UserError(message)
        weights.load_channel(net, channels.weights)
        return True
    if recipe.wants_download(hyperparameters):
        weights.download(net)
        return True
    return False


def _log_data(class_names: tuple[str, ...], training: Pictures, validation: Pictures) -> None:
    shown = ", ".join(class_names[:20]) + (", ..." if len(class_names) > 20 else "")  # noqa: PLR2004
    logger.info("classes=%d (%s)", len(class_names), shown)
    logger.info("training_pictures=%d validation_pictures=%d", len(training), len(validation))


def _log_recipe(trainer: Trainer, settings: Preprocessing, *, pretrained: bool) -> None:
    """Say what the hyperparameters that were left open have become."""
    logger.info(
        "arithmetic=%s hosts=%d image_size=%d pretrained=%s learning_rate=%g steps=%d",
        trainer.arithmetic,
        trainer.cluster.world_size,
        settings.image_size,
        pretrained,
        trainer.peak,
        trainer.total_steps,
    )
    if trainer.total_steps < FEW_STEPS:
        logger.warning(
            "%d steps are few to learn from: lower batch_size or raise epochs", trainer.total_steps
        )


def _write(
    environment: TrainingEnvironment,
    trainer: Trainer,
    settings: Preprocessing,
    class_names: tuple[str, ...],
) -> None:
    best = trainer.keep_best_weights()
    manifest = Manifest(
        class_names=class_names,
        network=trainer.hyperparameters.network,
        preprocessing=settings,
        metrics=_metrics(best, class_names),
        provenance=_provenance(trainer),
    )
    write_artifact(environment.model_dir, manifest, trainer.classifier, trainer.validation.paths)
    if best is None:
        return
    directory = environment.output_data_dir
    directory.mkdir(parents=True, exist_ok=True)
    report = {**manifest.metrics, "history": trainer.progress.history}
    (directory / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plots.learning_curves(directory / "learning_curves.png", trainer.progress.history)
    plots.confusion_matrix(
        directory / "confusion_matrix.png", best.evaluation.confusion, class_names
    )


def _metrics(best: Best | None, class_names: tuple[str, ...]) -> dict[str, Json]:
    if best is None:
        return {}
    confusion = best.evaluation.confusion
    return {
        "epoch": best.epoch,
        **best.evaluation.metrics(),
        "val_accuracy_interval_95": list(best.evaluation.accuracy_interval()),
        "classes": dict(per_class(confusion, class_names)),
        "confusion": confusion.tolist(),
    }


def _provenance(trainer: Trainer) -> dict[str, Json]:
    packages = ("torch", "torchvision", "onnx", "numpy", "pillow")
    return {
        "training_data_sha256": trainer.training.sha256,
        "validation_data_sha256": trainer.validation.sha256,
        "hyperparameters": dataclasses.asdict(trainer.hyperparameters),
        "training_job_name": os.environ.get("TRAINING_JOB_NAME"),
        "code_version": os.environ.get("CODE_VERSION"),
        "packages": {name: metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "hardware": _hardware(trainer.arithmetic.device),
        "arithmetic": str(trainer.arithmetic),
    }


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _fingerprint(hyperparameters: Hyperparameters, training: Pictures, validation: Pictures) -> str:
    """Return what a checkpoint must share with the job that goes on from it."""
    # How often checkpoints are written changes nothing of what is learned.
    same = dataclasses.replace(hyperparameters, checkpoint_interval_seconds=1)
    parts = (repr(same), training.sha256, validation.sha256)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _in_words(hyperparameters: Hyperparameters) -> str:
    values = dataclasses.asdict(hyperparameters).items()
    return "hyperparameters: " + " ".join(f"{name}={value}" for name, value in values)
