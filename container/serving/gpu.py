"""Choice of the engine: PyTorch or OpenVINO.

PyTorch is not imported, because that takes seconds.
"""

from importlib.util import find_spec

from container.classifier.errors import UserError
from container.classifier.machine import gpu_count
from container.serving.settings import ENGINE, TORCH, Settings


def serves_batches(settings: Settings) -> bool:
    """Return whether PyTorch predicts, in batches, instead of OpenVINO.

    Raises:
        UserError: PyTorch is chosen and not installed.
    """
    has_torch = all(find_spec(name) for name in ("torch", "container.networks"))
    if settings.engine:
        if settings.engine == TORCH and not has_torch:
            raise UserError(
                f"{ENGINE}={TORCH} needs PyTorch, which only the container image built with "
                "--build-arg DEVICE=gpu has"
            )
        return settings.engine == TORCH
    return has_torch and gpu_count() > 0
