"""A training job from its channels to its artifact."""

import dataclasses
import logging
import os

import torch

from container.classifier import machine
from container.classifier.environment import JOB_NAME_VARIABLE
from container.classifier.manifest import MANIFEST
from container.debugger.recording.debug_session import Observer, Settings
from container.training import inputs
from container.training.fitting import cluster, measured_arithmetic, measured_image_size
from container.training.fitting.checkpoint import Checkpoints, fingerprint
from container.training.fitting.cluster import Cluster
from container.training.fitting.loop import Trainer
from container.training.fitting.measured_threads import ComputeThreads
from container.training.fitting.time_budget import TimeBudget
from container.training.hyperparameters import Hyperparameters
from container.training.output import results
from container.training.output.expected_time import ExpectedTime
from container.training.output.tracking import Tracker
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import Stop, StopRequest

logger = logging.getLogger(__name__)

# The statistics of batch normalization alone need dozens of steps.
FEW_STEPS = 100


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
        settings = inputs.read_hyperparameters(environment)
        is_one = joined.world_size == 1
        # Users set the number format if a seed must reproduce, which needs a fixed number of
        # threads too.
        threads = ComputeThreads(is_measured=is_one and settings.precision == "auto")
        threads.choose()
        task = inputs.read_task(environment, settings, joined, stop)
        checkpoints = Checkpoints(
            environment.checkpoint_dir,
            fingerprint(task, joined.world_size),
            settings.checkpoint_interval_seconds,
        )
        newest = checkpoints.newest if joined.is_first else None
        size = joined.from_first(measured_image_size.recorded(newest))
        if size is not None and size != task.preprocessing.image_size:
            # Before a stop, another speed of the machine was measured.
            task = inputs.read_task(environment, settings, joined, stop, size)
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
