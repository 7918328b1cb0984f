"""Whether PyTorch serves here.

PyTorch is not imported, because that takes seconds.
"""

from importlib.util import find_spec

from container.classifier.errors import UserError
from container.classifier.machine import gpu_count
from container.serving.settings import ENGINE, TORCH, Settings


def serves_batches(settings: Settings) -> bool:
    """Return whether PyTorch serves, in batches, rather than OpenVINO.

    Raises:
        UserError: PyTorch is chosen and not installed.
    """
    has_torch = all(find_spec(name) for name in ("torch", "container.networks"))
    if settings.engine:
        if settings.engine == TORCH and not has_torch:
            message = (
                f"{ENGINE}={TORCH} needs PyTorch, which is in the image that is built with "
                "--build-arg DEVICE=gpu"
            )
            raise UserError(message)
        return settings.engine == TORCH
    return has_torch and gpu_count() > 0
