"""Whether PyTorch serves here, on how many GPUs.

CUDA is not asked: a process that has asked it cannot fork workers that use it, and PyTorch takes
seconds to import.
"""

from importlib.util import find_spec
from pathlib import Path

from container.classifier.errors import UserError
from container.serving.settings import ENGINE, TORCH, Settings

DEVICES = Path("/dev")


def gpus() -> int:
    """Return how many of NVIDIA's GPUs this container was given, by their device files."""
    return sum(1 for _ in DEVICES.glob("nvidia[0-9]*"))


def serves_batches(settings: Settings) -> bool:
    """Tell whether PyTorch serves, in batches, rather than OpenVINO.

    Raises:
        UserError: it is asked for and not there.
    """
    has_torch = all(find_spec(name) for name in ("torch", "networks"))
    if settings.engine:
        if settings.engine == TORCH and not has_torch:
            message = (
                f"{ENGINE}={TORCH} needs PyTorch, which is in the image that is built with "
                "--build-arg DEVICE=gpu"
            )
            raise UserError(message)
        return settings.engine == TORCH
    return has_torch and gpus() > 0
