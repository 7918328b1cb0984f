"""What a training job reads: hyperparameters, images and pretrained weights, checked."""

import logging

import torch

from container.classifier import lost_files
from container.classifier.class_folders import listed
from container.classifier.errors import UserError
from container.classifier.preprocessing import Preprocessing
from container.debugger.rules import selection
from container.networks.network import Network, build, check_input
from container.training import recipe
from container.training.data import images, split_files
from container.training.data.images import ImageSet
from container.training.fitting import measured_image_size, pretrained
from container.training.fitting.cluster import Cluster
from container.training.fitting.task import Task
from container.training.hyperparameters import Hyperparameters
from container.training.sagemaker.environment import Channels, TrainingEnvironment
from container.training.sagemaker.stop import Stop

logger = logging.getLogger(__name__)

# Names of classes in a line of the log.
MAX_NAMES = 20


def read_hyperparameters(environment: TrainingEnvironment) -> Hyperparameters:
    """Read and log the hyperparameters; check those that need more than their own values.

    Raises:
        UserError: one is invalid.
    """
    hyperparameters = Hyperparameters.from_strings(environment.hyperparameters())
    logger.info("hyperparameters: %s", hyperparameters.changes() or "the defaults")
    recipe.check_compiler(hyperparameters)
    selection.select(hyperparameters.debug_rules)
    return hyperparameters


def read_task(
    environment: TrainingEnvironment,
    hyperparameters: Hyperparameters,
    cluster: Cluster,
    stop: Stop,
    image_size: int | None = None,
) -> Task:
    """Read the job's files and check them before the slow work starts.

    The image size is chosen unless it is given.

    Raises:
        UserError: a file, or what it holds, cannot be trained on, or the hosts hold different ones.
        Stopped: a stop was requested.
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
    lost_files.check_lost(found - read + lost, found + lost)
    _check_batches(network, len(task.training), *settings, pretrained=pretrained)
    stop.check()
    cluster.check_equal(
        repr((class_names, [part.sha256 for part in decoded.values()])),
        "the hosts hold different images: every channel must be FullyReplicated, "
        "not ShardedByS3Key",
    )
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
