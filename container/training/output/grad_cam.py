"""Heat maps of the pixels that decide a prediction (Grad-CAM, Selvaraju et al. 2017)."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from container.classifier.preprocessing import Pixels
from container.networks.network import Classifier

# Images whose gradients are in memory at the same time.
BATCH_SIZE = 8


def heat_maps(
    classifier: Classifier, pixels: Pixels, labels: Sequence[int]
) -> npt.NDArray[np.float32] | None:
    """Return heat maps of pixels (N, S, S, 3) for the classes `labels` (N,), computed on the CPU.

    The channels of the last feature map are weighted by the gradients of the label's logit.

    Returns:
        float32 of shape (N, S, S), 0 to 1 in each image; None if the network's last features are
        not a map, as in a vision transformer.
    """
    # Without the flips of test-time augmentation, because a map belongs to one view.
    plain = Classifier(classifier.network).cpu().eval()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    name = _last_map(plain, images[:1])
    if name is None:
        return None
    module = plain.get_submodule(name)
    parts = (slice(start, start + BATCH_SIZE) for start in range(0, len(labels), BATCH_SIZE))
    maps = [_heat_maps(plain, module, images[part], torch.tensor(labels[part])) for part in parts]
    found: npt.NDArray[np.float32] = torch.cat(maps).numpy()
    return found


def _heat_maps(classifier: Classifier, module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[object, ...], output: Tensor) -> Tensor:
        kept.append(output)
        # The next layer may write into its input, as an in-place ReLU does.
        return output.clone()

    handle = module.register_forward_hook(keep)
    try:
        # The weights may be frozen, so the image must require a gradient.
        logits = classifier(images.requires_grad_())
        chosen = logits.gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, kept[0])
    finally:
        handle.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = (weights * kept[0].detach()).sum(dim=1, keepdim=True).relu()
    maps = nn.functional.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False)
    most = maps.amax(dim=(1, 2, 3), keepdim=True)
    return (maps / most.clamp(min=torch.finfo(maps.dtype).tiny))[:, 0]


def _last_map(classifier: Classifier, images: Tensor) -> str | None:
    """Return the name of the module of the last feature map (N, C, H, W), if any."""
    last: str | None = None

    def note(name: str, _module: nn.Module, _inputs: tuple[object, ...], output: object) -> None:
        nonlocal last
        if not isinstance(output, Tensor):
            return
        if output.dim() == 4 and min(output.shape[2:]) > 1:  # noqa: PLR2004 - N, C, H, W
            last = name
        elif output.dim() == 3:  # noqa: PLR2004 - N, tokens, C
            last = None

    handles = [
        module.register_forward_hook(partial(note, name))
        for name, module in classifier.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            classifier(images)
    finally:
        for handle in handles:
            handle.remove()
    return last
