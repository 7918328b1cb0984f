"""A training job from its channels to its artifact."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from container.classifier import channel
from container.classifier.errors import UserError
from container.classifier.manifest import MANIFEST
from container.classifier.mirrored_classes import mirrored_classes
from container.classifier.preprocessing import Preprocessing
from container.debugger.recording.debug_session import Observer, Settings
from container.debugger.rules import selection
from container.networks.network import Network, build, check_input
from container.training import recipe
from container.training.data import images, validation_split
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.evaluation.assessment import Assessment
from container.training.fitting import cluster
from container.training.fitting import pretrained as weights
from container.training.fitting.checkpoint import Checkpoints
from container.training.fitting.cluster import Cluster
from container.training.fitting.loop import Trainer
from container.training.hyperparameters import Hyperparameters
from container.training.output import provenance, results
from container.training.sagemaker.environment import Channels, TrainingEnvironment
from container.training.sagemaker.stop import Stop, StopRequest

logger = logging.getLogger(__name__)

# Batch normalization alone takes dozens to know the mean of what it sees.
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
    training: ImageSet
    validation: ImageSet
    test: ImageSet | None

    @property
    def channels(self) -> tuple[ImageSet | None, ...]:
        """All images that were read."""
        return self.training, self.validation, self.test


def run(environment: TrainingEnvironment, stop: StopRequest) -> None:
    """Train as the job's files say, and write the artifact and the reports.

    Raises:
        UserError: something is wrong that the user can mend.
        Stopped: a stop was requested before there was anything to save.
    """
    judged = None
    # Before the images are read: a process that cannot continue then ends the others at once.
    with cluster.joined(environment.hosts(), stop) as joined:
        task = _read_task(environment, joined.world_size, stop)
        stop.check()
        joined.check_equal(
            repr((task.class_names, [read and read.sha256 for read in task.channels])),
            "the hosts hold different images: every channel must be FullyReplicated, "
            "not ShardedByS3Key",
        )
        trainer = Trainer(
            task.network,
            task.training,
            task.validation,
            task.hyperparameters,
            pretrained=task.weights_source is not None,
            num_classes=len(task.class_names),
            arithmetic=Arithmetic.choose(
                task.hyperparameters.precision, task.hyperparameters.network
            ),
            cluster=joined,
            observer=Observer(_debug_settings(environment, task.hyperparameters, joined)),
        )
        _log_recipe(trainer, task)
        checkpoints = Checkpoints(
            environment.checkpoint_dir,
            provenance.fingerprint(trainer, task.weights_source),
            task.hyperparameters.checkpoint_interval_seconds,
        )
        # Neither a loss that is no number any more nor a stop in the first epoch may cost the
        # artifact of a run that went well.
        is_free = not (environment.model_dir / MANIFEST).exists()
        try:
            trainer.train(stop, checkpoints)
        except Exception:
            if joined.is_first and is_free and trainer.progress.best is not None:
                # As if stopped: a device that failed once is asked for nothing more.
                _write(environment, trainer, task, StopRequest(requested=True), is_failed=True)
            raise
        finally:
            trainer.observer.close()
        ending = StopRequest(requested=True) if joined.agreed(stop).requested else stop
        if joined.is_first and (is_free or trainer.progress.best is not None):
            judged = _write(environment, trainer, task, ending)
    # Where no other host waits for this one any more.
    if judged is not None:
        report = environment.output_data_dir / results.REPORT
        judged.check_accuracy(task.hyperparameters.min_accuracy, report)


def _read_task(environment: TrainingEnvironment, processes: int, stop: Stop) -> Task:
    hyperparameters = Hyperparameters.from_strings(environment.hyperparameters())
    logger.info("%s", _in_words(hyperparameters))
    recipe.check_compiler(hyperparameters)
    selection.select(hyperparameters.debug_rules)
    channels = environment.channels()
    settings = Preprocessing(image_size=recipe.image_size(hyperparameters))
    class_names, files = _find_files(channels, hyperparameters)
    test_files = _find_test_files(channels, class_names)
    torch.manual_seed(hyperparameters.seed)
    net = build(hyperparameters.network, len(class_names), settings.image_size)
    weights_source = _load_weights(net, channels, hyperparameters)

    def check_batches(count: int) -> None:
        share = recipe.smallest_share(count, hyperparameters.batch_size, processes)
        # Of the smallest batch the smallest of the parts in which it is computed.
        part = share // min(hyperparameters.gradient_accumulation_steps, share) * processes
        check_input(net, part, settings.image_size)
        if hyperparameters.half_size_steps:
            try:
                check_input(net, part, settings.image_size // 2)
            except UserError as error:
                message = f"half_size_steps is not for this network: {error}"
                raise UserError(message) from error

    # Before the images: a wrong name or size fails in a second, not after minutes of decoding.
    check_batches(len(files[0]))
    training = images.decode(files[0], class_names, settings, stop)
    validation = images.decode(files[1], class_names, settings, stop)
    test = images.decode(test_files, class_names, settings, stop) if test_files else None
    _check_data(class_names, training, validation)
    _check_held_out(training, {"validation": validation, "test": test})
    if test is not None:
        logger.info("test_images=%d", len(test))
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
        test=test,
    )


def _debug_settings(
    environment: TrainingEnvironment, hyperparameters: Hyperparameters, joined: Cluster
) -> Settings | None:
    if hyperparameters.debug == "off":
        return None
    return Settings(
        configuration_path=environment.hook_configuration_path,
        profiler_configuration_path=environment.profiler_configuration_path,
        node=environment.hosts().current,
        output_dir=environment.output_dir,
        is_first=joined.is_first,
        is_required=hyperparameters.debug == "required",
        rules=hyperparameters.debug_rules,
    )


def _find_files(
    channels: Channels, hyperparameters: Hyperparameters
) -> tuple[tuple[str, ...], tuple[list[channel.LabeledFile], list[channel.LabeledFile]]]:
    """Return the class names, and the files for training and for validation."""
    if channels.unused:
        logger.warning("channels not used: %s", ", ".join(channels.unused))
    files = channel.labeled_files(channels.training)
    class_names = channel.class_names_of(files)
    flips = hyperparameters.horizontal_flip or hyperparameters.vertical_flip
    if flips and (pairs := mirrored_classes(class_names)):
        logger.warning(
            "flips are on, and classes look like left and right (%s): a flip makes one of the "
            "other; set horizontal_flip=false vertical_flip=false",
            ", ".join(f"{left}/{right}" for left, right in pairs[:5]),
        )
    if channels.validation is None:
        fraction, seed = hyperparameters.validation_fraction, hyperparameters.seed
        return class_names, validation_split.split(files, fraction, seed)
    held_out = channel.labeled_files(channels.validation)
    channel.check_classes(held_out, class_names, "validation")
    return class_names, (files, held_out)


def _find_test_files(channels: Channels, class_names: tuple[str, ...]) -> list[channel.LabeledFile]:
    """Return the files of the test channel; without one, none."""
    if channels.test is None:
        return []
    files = channel.labeled_files(channels.test)
    channel.check_classes(files, class_names, "test")
    return files


def _load_weights(net: Network, channels: Channels, hyperparameters: Hyperparameters) -> str | None:
    """Load pretrained weights where the job has any; return which."""
    if channels.weights is not None:
        if hyperparameters.pretrained is False:
            message = "pretrained=false, and yet there is a `weights` channel: drop one of them"
            raise UserError(message)
        return weights.load_channel(net, channels.weights)
    return weights.download(net) if recipe.wants_download(hyperparameters) else None


def _check_data(class_names: tuple[str, ...], training: ImageSet, validation: ImageSet) -> None:
    shown = ", ".join(class_names[:20]) + (", ..." if len(class_names) > 20 else "")  # noqa: PLR2004
    logger.info("classes=%d (%s)", len(class_names), shown)
    logger.info("training_images=%d validation_images=%d", len(training), len(validation))
    seen = set(training.labels.tolist())
    if lost := [name for label, name in enumerate(class_names) if label not in seen]:
        message = f"no image of the class {lost[0]!r} can be read"
        raise UserError(message)


def _check_held_out(training: ImageSet, others: Mapping[str, ImageSet | None]) -> None:
    for name, read in others.items():
        if read is not None and read.sha256 == training.sha256:
            message = (
                f"the {name} channel holds the training channel's images, which say nothing of "
                "others: give it images of its own, or leave it out"
            )
            raise UserError(message)


def _log_recipe(trainer: Trainer, task: Task) -> None:
    """Say what the hyperparameters that were left open have become."""
    recipe = trainer.recipe
    logger.info(
        "arithmetic=%s processes=%d image_size=%d pretrained=%s",
        trainer.arithmetic,
        trainer.cluster.world_size,
        task.settings.image_size,
        task.weights_source is not None,
    )
    for sentence in recipe.sentences(task.training.labels):
        logger.info("recipe: %s", sentence)
    if task.weights_source is None and recipe.total_steps < FEW_STEPS:
        logger.warning(
            "%d steps are few to learn from: lower batch_size or raise epochs", recipe.total_steps
        )


def _write(
    environment: TrainingEnvironment,
    trainer: Trainer,
    task: Task,
    stop: Stop,
    *,
    is_failed: bool = False,
) -> Assessment | None:
    return results.write(
        environment,
        trainer,
        class_names=task.class_names,
        network=task.network.name,
        settings=task.settings,
        test=task.test,
        weights_source=task.weights_source,
        stop=stop,
        is_failed=is_failed,
        choices=trainer.recipe.sentences(task.training.labels),
    )


def _in_words(hyperparameters: Hyperparameters) -> str:
    values = dataclasses.asdict(hyperparameters).items()
    return "hyperparameters: " + " ".join(f"{name}={value}" for name, value in values)
