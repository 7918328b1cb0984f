"""Files that can be images and cannot be read: a few are logged, many are an error."""

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from container.classifier.errors import UserError
from container.classifier.image_files import Unused, described

logger = logging.getLogger(__name__)

# More files that cannot be read are a broken data set.
MAX_BROKEN_FRACTION = 0.05


def check_unused(directory: Path, images: Sequence[str], unused: Sequence[Unused]) -> int:
    """Log the files that are not used; check that few of them can be images; count these.

    Raises:
        UserError: a folder has lost all of its images, or more than 5 % of all files are lost.
    """
    if not unused:
        return 0
    shown = described([f"{directory / item.name} ({item.reason})" for item in unused])
    logger.warning("%d files are not used: %s", len(unused), shown)
    lost = [(item.name, item.reason) for item in unused if item.is_lost]
    check_folders(directory, images, lost)
    broken = [f"{directory / name} ({reason})" for name, reason in lost]
    check_fraction(broken, len(images) + len(lost))
    return len(lost)


def check_folders(directory: Path, images: Sequence[str], lost: Sequence[tuple[str, str]]) -> None:
    """Check that no folder has lost all of its images; `lost` has their paths with the reasons.

    Raises:
        UserError: one has.
    """
    used = {folder for name in images for folder in PurePosixPath(name).parents}
    for name, reason in lost:
        folder = PurePosixPath(name).parent
        if folder not in used and folder.name:
            raise UserError(
                f"no file in {directory / folder} can be read, such as {directory / name} "
                f"({reason})"
            )


def check_lost(lost: int, total: int) -> None:
    """Check that few files of a job are unknown, missing or undecodable, all counted together.

    Raises:
        UserError: they are more than 5 %.
    """
    if lost > MAX_BROKEN_FRACTION * total:
        raise UserError(
            f"{lost} of {total} files are no images that can be read, more than "
            f"{MAX_BROKEN_FRACTION:.0%}: the log names them; replace or remove them"
        )


def check_fraction(broken: Sequence[str], total: int) -> None:
    """Check that few files cannot be read.

    Args:
        broken: Their paths with the reasons.
        total: The number of all files.

    Raises:
        UserError: more than 5 % cannot be read.
    """
    if len(broken) > MAX_BROKEN_FRACTION * total:
        raise UserError(
            f"{len(broken)} of {total} images cannot be read, more than {MAX_BROKEN_FRACTION:.0%}: "
            f"{described(broken)}"
        )
