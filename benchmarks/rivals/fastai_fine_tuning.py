"""fastai's `fine_tune` with its defaults, for an environment with fastai."""

from fastai.vision.all import (
    Callback,
    ImageDataLoaders,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)
from torchvision.models import squeezenet1_0

from benchmarks.rivals.budget import History, Job, run


def main() -> None:
    """Train within the budget."""
    run(fine_tune)


def fine_tune(job: Job, epochs: int, history: History) -> None:
    """Train the head for an epoch, then all layers."""
    set_seed(job.seed)
    loaders = ImageDataLoaders.from_folder(
        job.folder,
        train="train",
        valid="val",
        item_tfms=Resize(job.image_size),
        batch_tfms=aug_transforms(),
    )
    learner = vision_learner(loaders, squeezenet1_0, metrics=accuracy)
    # The log ends with the metric.
    record = Callback(after_epoch=lambda _: history.add(float(learner.recorder.log[-1])))
    with learner.no_bar(), learner.no_logging(), learner.added_cbs([record]):
        learner.fine_tune(epochs)


if __name__ == "__main__":
    main()
