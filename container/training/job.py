"""A training job from its channels to its artifact."""

import dataclasses
import logging
import os

import torch

from container.classifier import labeled_images, machine
from container.classifier.class_folders import listed
from container.classifier.environment import JOB_NAME_VARIABLE
from container.classifier.errors import UserError
from container.classifier.manifest import MANIFEST
from container.classifier.preprocessing import Preprocessing
from container.debugger.recording.debug_session import Observer, Settings
from container.debugger.rules import selection
from container.networks.network import Network, build, check_input
from container.training import recipe
from container.training.data import images, split_files
from container.training.data.images import ImageSet
from container.training.fitting import cluster, measured_arithmetic, measured_image_size, pretrained
from container.training.fitting.checkpoint import Checkpoints, fingerprint
from container.training.fitting.cluster import Cluster
from container.training.fitting.loop import Trainer
from container.training.fitting.measured_threads import ComputeThreads
from container.training.fitting.task import Task
from container.training.fitting.time_budget import TimeBudget
from container.training.hyperparameters import Hyperparameters
from container.training.output import results
from container.training.output.expected_time import ExpectedTime
from container.training.output.tracking import Tracker
from container.training.sagemaker.environment import Channels, TrainingEnvironment
from container.training.sagemaker.stop import Stop, StopRequest

logger = logging.getLogger(__name__)

# The statistics of batch normalization alone need dozens of steps.
FEW_STEPS = 100

MAX_NAMES = 20


def run(environment: TrainingEnvironment, stop: Stop, budget: TimeBudget | None = None) -> None:
    """Train as the job's files specify, and write the artifact and the reports.

    Args:
        environment: the job's files.
        stop: is read between steps.
        budget: started with the job's process; default: now.

    Raises:
        UserError: an error that the user can fix.
        Stopped: a stop was requested before the first step.
    """
    budget = budget or TimeBudget()
    budget.start_seconds = budget.used_seconds
    try:
        with Tracker(stop) as tracker:
            _run(environment, stop, tracker, budget)
    finally:
        if budget.is_limited:
            used, limit = budget.used_seconds / 60, budget.limit_seconds / 60
            logger.info("max_minutes: %.1f of %g minutes used", used, limit)


def _run(
    environment: TrainingEnvironment, stop: Stop, tracker: Tracker, budget: TimeBudget
) -> None:
    assessment = None
    # Before the images are decoded: if a process cannot continue, the others then end at once.
    with cluster.joined(environment.hosts(), stop) as joined:
        settings = _read_hyperparameters(environment)
        is_one = joined.world_size == 1
        # A number format is set so that a seed reproduces, which needs as many threads again.
        threads = ComputeThreads(is_measured=is_one and settings.precision == "auto")
        threads.choose()
        task = _read_task(environment, settings, joined, stop)
        channels = (task.training, task.validation, task.test)
        joined.check_equal(
            repr((task.class_names, [decoded.sha256 for decoded in channels if decoded])),
            "the hosts hold different images: every channel must be FullyReplicated, "
            "not ShardedByS3Key",
        )
        checkpoints = Checkpoints(
            environment.checkpoint_dir,
            fingerprint(task, joined.world_size),
            settings.checkpoint_interval_seconds,
        )
        newest = checkpoints.newest if joined.is_first else None
        size = joined.from_first(measured_image_size.recorded(newest))
        if size is not None and size != task.preprocessing.image_size:
            # Before a stop, another speed of the machine was measured.
            task = _read_task(environment, settings, joined, stop, size)
        threads.restore(newest)
        arithmetic = measured_arithmetic.choose(task, joined, checkpoints)
        if settings.max_minutes is not None:
            ending = ExpectedTime.of(task, arithmetic.device, budget.start_seconds)
            budget.limit(settings.max_minutes, ending)
        trainer = Trainer(
            task,
            arithmetic=arithmetic,
            cluster=joined,
            threads=threads,
            observer=Observer(_debug_settings(environment, settings, joined)),
            on_metrics=tracker.log_metrics,
            budget=budget,
        )
        _log_recipe(trainer)
        if joined.is_first:
            tracker.start(os.environ.get(JOB_NAME_VARIABLE), _parameters(trainer))
        # An artifact of an earlier run is replaced only by a run that has finished an epoch.
        is_free = not (environment.model_dir / MANIFEST).exists()
        _train(trainer, checkpoints, environment, stop, is_free=is_free)
        stop = StopRequest(requested=True) if joined.agreed(stop).requested else stop
        if joined.is_first and (is_free or trainer.progress.best is not None):
            limit = budget.quantization_seconds
            assessment = results.write(environment, task, trainer.result(), stop, limit)
            tracker.upload(environment.model_dir, "model")
            tracker.upload(environment.output_data_dir, "reports")
    # Outside the block, so that a failure does not interrupt the other hosts.
    if assessment is not None:
        tracker.log_metrics(assessment.averages(), assessment.epoch)
        for sentence in assessment.sentences():
            logger.info("%s", sentence)
        if trainer.recipe.epochs:
            least = 1 if trainer.task.is_pretrained else FEW_STEPS
            budget.log_shortage(trainer.recipe.total_steps, least)
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


def _train(
    trainer: Trainer,
    checkpoints: Checkpoints,
    environment: TrainingEnvironment,
    stop: Stop,
    *,
    is_free: bool,
) -> None:
    """Train; after an error write what was trained, if no earlier artifact is replaced."""
    try:
        trainer.train(stop, checkpoints)
    except Exception:
        if trainer.cluster.is_first and is_free and trainer.progress.best is not None:
            # As if stopped: the device that has failed is not used for more than necessary.
            ending = StopRequest(requested=True)
            results.write(environment, trainer.task, trainer.result(), ending, is_failed=True)
        raise
    finally:
        trainer.observer.close()


def _read_hyperparameters(environment: TrainingEnvironment) -> Hyperparameters:
    hyperparameters = Hyperparameters.from_strings(environment.hyperparameters())
    logger.info("hyperparameters: %s", hyperparameters.changes() or "the defaults")
    recipe.check_compiler(hyperparameters)
    selection.select(hyperparameters.debug_rules)
    return hyperparameters


def _read_task(
    environment: TrainingEnvironment,
    hyperparameters: Hyperparameters,
    cluster: Cluster,
    stop: Stop,
    image_size: int | None = None,
) -> Task:
    """Read the job's files and check them before the slow work starts.

    The image size is chosen unless it is given.
    """
    channels = environment.channels()
    class_names, files, lost = split_files.find(channels, hyperparameters)
    if image_size is None:
        splits = files["training"], files["validation"]
        image_size = measured_image_size.choose(hyperparameters, len(class_names), *splits, cluster)
    preprocessing = Preprocessing(image_size=image_size)
    torch.manual_seed(hyperparameters.seed)
    network = build(hyperparameters.network, len(class_names), preprocessing.image_size)
    weights_source = _load_weights(network, channels, hyperparameters)
    # Before the images are decoded, which takes minutes, and after, without the broken ones.
    pretrained = weights_source is not None
    settings = (hyperparameters, preprocessing, cluster.world_size)
    _check_batches(network, len(files["training"]), *settings, pretrained=pretrained)
    found = sum(map(len, files.values()))
    decoded = {
        name: images.decode(part, class_names, preprocessing, stop, name)
        for name, part in files.items()
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
    stop.check()
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
    # Only one process of a job records tensors, evaluates rules and writes reports.
    if hyperparameters.debug == "off" or not joined.is_first:
        return None
    return Settings(
        configuration_path=environment.config_path("debughookconfig.json"),
        profiler_configuration_path=environment.config_path("profilerconfig.json"),
        node=environment.hosts().current,
        output_dir=environment.output_dir,
        is_required=hyperparameters.debug == "required",
        rules=hyperparameters.debug_rules,
    )


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
    logger.info("classes=%d (%s)", len(names), listed(names, MAX_NAMES))
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
