"""Names of channels and splits, which several programs write and read."""

from collections.abc import Collection, Mapping

TRAINING, VALIDATION, TEST, WEIGHTS = "training", "validation", "test", "weights"

# The channels of a training job with their accepted names, the preferred one first.
CHANNEL_NAMES: Mapping[str, tuple[str, ...]] = {
    TRAINING: ("training", "train"),
    VALIDATION: ("validation", "val", "valid"),
    TEST: ("test",),
    WEIGHTS: ("weights", "model"),
}

# The folders of a prepared data set, each of which can be a channel.
SPLITS = ("train", "validation", "test")


def find_folder(name: str, folders: Collection[str]) -> str | None:
    """Return the folder of a channel in `folders`: of this name, or of another accepted one."""
    accepted = next((names for names in CHANNEL_NAMES.values() if name in names), ())
    return next((folder for folder in (name, *accepted) if folder in folders), None)


def find_channel(channel: str, names: Collection[str]) -> str | None:
    """Return the first of a channel's accepted names that is in `names`, if any is."""
    return next((name for name in CHANNEL_NAMES[channel] if name in names), None)
