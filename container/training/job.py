"""A training job from its channels to its artifact."""

import dataclasses
import logging
import os

import torch

from container.classifier import labeled_images, machine
from container.classifier.channel_names import SPLITS
from container.classifier.environment import JOB_NAME_VARIABLE
from container.classifier.errors import UserError
from container.classifier.labeled_images import LabeledFile
from container.classifier.manifest import MANIFEST
from container.classifier.preprocessing import Preprocessing
from container.debugger.recording.debug_session import Observer, Settings
from container.debugger.rules import selection
from container.networks.network import Network, build, check_input
from container.training import recipe
from container.training.data import images, sampling
from container.training.data.images import ImageSet
from container.training.fitting import cluster, measured_arithmetic, pretrained
from container.training.fitting.checkpoint import Checkpoints, fingerprint
from container.training.fitting.cluster import Cluster
from container.training.fitting.loop import Trainer
from container.training.fitting.task import Task
from container.training.hyperparameters import Hyperparameters
from container.training.output import results
from container.training.output.tracking import Tracker
from container.training.sagemaker.environment import Channels, TrainingEnvironment
from container.training.sagemaker.stop import Stop, StopRequest

logger = logging.getLogger(__name__)

# The statistics of batch normalization alone need dozens of steps.
FEW_STEPS = 100

MAX_NAMES = 20


def run(environment: TrainingEnvironment, stop: Stop) -> None:
    """Train as the job's files specify, and write the artifact and the reports.

    Raises:
        UserError: an error that the user can fix.
        Stopped: a stop was requested before the first step.
    """
    with Tracker(stop) as tracker:
        _run(environment, stop, tracker)


def _run(environment: TrainingEnvironment, stop: Stop, tracker: Tracker) -> None:
    assessment = None
    # Before the images are decoded: if a process cannot continue, the others then end at once.
    with cluster.joined(environment.hosts(), stop) as joined:
        task = _read_task(environment, joined.world_size, stop)
        stop.check()
        channels = (task.training, task.validation, task.test)
        joined.check_equal(
            repr((task.class_names, [decoded.sha256 for decoded in channels if decoded])),
            "the hosts hold different images: every channel must be FullyReplicated, "
            "not ShardedByS3Key",
        )
        settings = task.hyperparameters
        checkpoints = Checkpoints(
            environment.checkpoint_dir,
            fingerprint(task, joined.world_size),
            settings.checkpoint_interval_seconds,
        )
        trainer = Trainer(
            task,
            arithmetic=measured_arithmetic.choose(task, joined, checkpoints),
            cluster=joined,
            observer=Observer(_debug_settings(environment, settings, joined)),
            on_metrics=tracker.log_metrics,
        )
        _log_recipe(trainer)
        if joined.is_first:
            tracker.start(os.environ.get(JOB_NAME_VARIABLE), _parameters(trainer))
        # An artifact of an earlier run is replaced only by a run that has finished an epoch.
        is_free = not (environment.model_dir / MANIFEST).exists()
        try:
            trainer.train(stop, checkpoints)
        except Exception:
            if joined.is_first and is_free and trainer.progress.best is not None:
                # As if stopped: the device that has failed is not used for more than necessary.
                ending: Stop = StopRequest(requested=True)
                results.write(environment, task, trainer.result(), ending, is_failed=True)
            raise
        finally:
            trainer.observer.close()
        ending = StopRequest(requested=True) if joined.agreed(stop).requested else stop
        if joined.is_first and (is_free or trainer.progress.best is not None):
            assessment = results.write(environment, task, trainer.result(), ending)
            tracker.upload(environment.model_dir, "model")
            tracker.upload(environment.output_data_dir, "reports")
    # Outside the block, so that a failure does not interrupt the other hosts.
    if assessment is not None:
        tracker.log_metrics(assessment.averages(), assessment.epoch)
        for sentence in assessment.sentences():
            logger.info("%s", sentence)
        report = environment.output_data_dir / results.REPORT
        assessment.check_accuracy(settings.min_accuracy, report)


def _parameters(trainer: Trainer) -> dict[str, object]:
    """Return what a tracking server shows of a job."""
    task = trainer.task
    return {
        **dataclasses.asdict(task.hyperparameters),
        "classes": len(task.class_names),
        "training_images": len(task.training),
        "training_data_sha256": task.training.sha256,
        "arithmetic": trainer.arithmetic,
        "code_version": os.environ.get("CODE_VERSION"),
    }


def _read_task(environment: TrainingEnvironment, ranks: int, stop: Stop) -> Task:
    """Read the job's files and check them before the slow work starts."""
    hyperparameters = Hyperparameters.from_strings(environment.hyperparameters())
    logger.info("hyperparameters: %s", hyperparameters.changes() or "the defaults")
    recipe.check_compiler(hyperparameters)
    selection.select(hyperparameters.debug_rules)
    channels = environment.channels()
    preprocessing = Preprocessing(image_size=recipe.image_size(hyperparameters))
    class_names, files, lost = _find_files(channels, hyperparameters)
    torch.manual_seed(hyperparameters.seed)
    network = build(hyperparameters.network, len(class_names), preprocessing.image_size)
    weights_source = _load_weights(network, channels, hyperparameters)
    # Before the images are decoded, which takes minutes, and after, without the broken ones.
    pretrained = weights_source is not None
    settings = (hyperparameters, preprocessing, ranks)
    _check_batches(network, len(files["training"]), *settings, pretrained=pretrained)
    found = sum(map(len, files.values()))
    decoded = {
        name: images.decode(part, class_names, preprocessing, stop) for name, part in files.items()
    }
    task = Task(
        hyperparameters=hyperparameters,
        preprocessing=preprocessing,
        class_names=class_names,
        network=network,
        weights_source=weights_source,
        **decoded,
    )
    _check_images(task)
    read = sum(map(len, decoded.values()))
    labeled_images.check_lost(found - read + lost, found + lost)
    _check_batches(network, len(task.training), *settings, pretrained=pretrained)
    return task


def _check_batches(
    network: Network,
    images_count: int,
    hyperparameters: Hyperparameters,
    preprocessing: Preprocessing,
    ranks: int,
    *,
    pretrained: bool,
) -> None:
    """Check that the network can be trained on the smallest part of the smallest batch."""
    batch_size = recipe.batch_size(hyperparameters, pretrained=pretrained)
    count = recipe.min_images_per_rank(images_count, batch_size, ranks)
    part = count // min(hyperparameters.gradient_accumulation_steps, count) * ranks
    check_input(network, part, preprocessing.image_size)
    if hyperparameters.half_size_steps:
        try:
            check_input(network, part, preprocessing.image_size // 2)
        except UserError as error:
            raise UserError(f"half_size_steps does not suit this network: {error}") from error


def _debug_settings(
    environment: TrainingEnvironment, hyperparameters: Hyperparameters, joined: Cluster
) -> Settings | None:
    if hyperparameters.debug == "off":
        return None
    return Settings(
        configuration_path=environment.config_path("debughookconfig.json"),
        profiler_configuration_path=environment.config_path("profilerconfig.json"),
        node=environment.hosts().current,
        output_dir=environment.output_dir,
        is_first=joined.is_first,
        is_required=hyperparameters.debug == "required",
        rules=hyperparameters.debug_rules,
    )


def _find_files(
    channels: Channels, hyperparameters: Hyperparameters
) -> tuple[tuple[str, ...], dict[str, list[LabeledFile]], int]:
    """Return the class names, the files for training, validation and test, and those lost."""
    if channels.unused:
        logger.warning("channels not used: %s", ", ".join(channels.unused))
    has_splits = hyperparameters.splits != "none"
    training, held_out, lost = _read_channels(channels, has_splits=has_splits)
    class_names = labeled_images.check_splits({"train": training, **held_out})
    flips = hyperparameters.horizontal_flip or hyperparameters.vertical_flip
    if flips and (pairs := labeled_images.mirrored_classes(class_names)):
        logger.warning(
            "flips are on, and classes look like left and right (%s): a flip makes one of the "
            "other; set horizontal_flip=false vertical_flip=false",
            ", ".join(f"{left}/{right}" for left, right in pairs[:5]),
        )
    if "validation" not in held_out:
        fraction, seed = hyperparameters.validation_fraction, hyperparameters.seed
        training, held_out["validation"] = sampling.split_validation(training, fraction, seed)
    return class_names, {"training": training, **held_out}, lost


def _read_channels(
    channels: Channels, *, has_splits: bool
) -> tuple[list[LabeledFile], dict[str, list[LabeledFile]], int]:
    """Return the files for training, those of validation and test, and the number of those lost.

    A single channel can contain the folders of all splits.

    Raises:
        UserError: it is not certain which files are for training.
    """
    others = {
        name: labeled_images.labeled_splits(path, is_whole=False, has_splits=has_splits)
        for name, path in (("validation", channels.validation), ("test", channels.test))
        if path is not None
    }
    splits = labeled_images.labeled_splits(channels.training, has_splits=has_splits)
    lost = sum(of_one.lost for of_one in (splits, *others.values()))
    held_out = {name: labeled_images.single_split(of_one) for name, of_one in others.items()}
    if len(splits) == 1:
        return labeled_images.single_split(splits), held_out, lost
    counts = ", ".join(f"{name} ({len(files)} images)" for name, files in splits.items())
    if held_out or "train" not in splits or splits.keys() - set(SPLITS):
        raise UserError(
            f"the training channel contains the splits {counts}: make the folder of each split a "
            "channel, `training`, `validation` and `test`"
        )
    logger.info("the training channel contains splits, which are used as channels: %s", counts)
    return splits.pop("train"), splits, lost


def _load_weights(
    network: Network, channels: Channels, hyperparameters: Hyperparameters
) -> str | None:
    """Load the pretrained weights of the job, if any; return their source."""
    if channels.weights is not None:
        if hyperparameters.pretrained is False:
            raise UserError(
                "pretrained=false, but the job has a `weights` channel: remove one of them"
            )
        return pretrained.load_channel(network, channels.weights)
    return pretrained.download(network) if recipe.wants_download(hyperparameters) else None


def _check_images(task: Task) -> None:
    """Log what was decoded; check that it can be trained on and evaluated."""
    names = task.class_names
    shown = ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
    logger.info("classes=%d (%s)", len(names), shown)
    logger.info("training_images=%d validation_images=%d", len(task.training), len(task.validation))
    if task.test is not None:
        logger.info("test_images=%d", len(task.test))
    found = set(task.training.labels.tolist())
    if lost := [name for label, name in enumerate(names) if label not in found]:
        raise UserError(f"no image of the class {lost[0]!r} can be read")
    held_out: dict[str, ImageSet | None] = {"validation": task.validation, "test": task.test}
    for name, decoded in held_out.items():
        if decoded is not None and decoded.sha256 == task.training.sha256:
            raise UserError(
                f"the {name} channel holds the images of the training channel, so its metrics "
                "would not measure accuracy on new images: use other images, or remove the channel"
            )


def _log_recipe(trainer: Trainer) -> None:
    """Log what the unset hyperparameters have become."""
    task = trainer.task
    logger.info("cpu_threads=%d cpu_quota=%s", torch.get_num_threads(), machine.cpu_quota())
    logger.info(
        "arithmetic=%s processes=%d image_size=%d pretrained=%s",
        trainer.arithmetic,
        trainer.cluster.world_size,
        task.preprocessing.image_size,
        task.is_pretrained,
    )
    for sentence in trainer.recipe.sentences(task.training.labels):
        logger.info("recipe: %s", sentence)
    steps = trainer.recipe.total_steps
    if not task.is_pretrained and steps < FEW_STEPS:
        logger.warning(
            "%d steps are few to train from scratch: lower batch_size or raise epochs", steps
        )
