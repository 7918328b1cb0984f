"""Records tensors of a training loop into smdebug's files, without a hook in any module."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from container.debugger.recording import activations
from container.debugger.recording.hook_configuration import HookConfiguration
from container.debugger.recording.patched_smdebug import (
    VARIABLES,
    ModeKeys,
    TensorHook,
    forget_hook,
)

logger = logging.getLogger(__name__)

END_OF_JOB, CLAIM = "training_job_end.ts", "claim.smd"

# In bytes. The first is of what one run may write; the second is left to everything else.
BUDGET, FREE = 512 * 2**20, 1024 * 2**20

# Of the batch, for the pass that looks at activations.
WATCHED_IMAGES = 8

# Values of each channel's side that are kept of images and of what may saturate.
PIXELS_SIDE, SATURABLE_SIDE = 8, 4

LOSS = "CrossEntropyLoss"

# What needs no look at activations.
DIRECT = frozenset(
    {"losses", "weights", "biases", "gradients", "labels", "predictions", "update_ratio"}
    | {"input_image", "default"}
)


class BudgetError(Exception):
    """As much was written as may be."""


class View:
    """A module under the name that smdebug gives its tensors."""

    def __init__(self, module: nn.Module) -> None:
        """Show the parameters of `module`."""
        self.module = module
        self._module_name = type(module).__name__

    def _get_name(self) -> str:
        return self._module_name

    def named_parameters(self) -> Sequence[tuple[str, nn.Parameter]]:
        """Return the parameters, as the hook asks for them."""
        return [*self.module.named_parameters()]


class TensorRecorder:
    """Writes what a configuration asks for; errors are the caller's.

    Files are numbered by the steps of training and evaluation together, a function of the
    training's step alone: a run that continues from a checkpoint writes what the uninterrupted one
    would have.
    """

    def __init__(
        self, configuration: HookConfiguration, module: nn.Module, *, first_step: int, epoch: int
    ) -> None:
        """Watch `module` from a step on; what a former run has written of later ones is dropped.

        Raises:
            OSError: the directory cannot be written to.
        """
        self.directory = configuration.directory
        self.view = View(module)
        self._prepare(_file_number(first_step, epoch))
        self._hook = _make_hook(configuration.document)
        self._due: frozenset[str] = frozenset()
        self._before: list[tuple[str, nn.Parameter, Tensor]] = []
        self._exported = 0

    def begin_step(self, number: int, epoch: int) -> None:
        """Begin a step of training; weights are recorded as they are before it."""
        self._begin(ModeKeys.TRAIN, number, _file_number(number, epoch))

    def is_due(self, collection: str) -> bool:
        """Tell whether this step records a collection."""
        return collection in self._due

    @property
    def is_watching(self) -> bool:
        """Whether this step needs the images."""
        return bool(self._due - DIRECT) or self.is_due("input_image")

    def labels(self, labels: npt.NDArray[np.int64]) -> None:
        """Record a batch's labels (N,)."""
        self._save("labels", labels)

    def images(self, images: Tensor) -> None:
        """Record what the network sees, images (N, 3, H, W), and how its layers answer."""
        if self.is_due("input_image"):
            self._save("input_image", activations.sample(images, PIXELS_SIDE))
        if self._due - DIRECT:
            activations.watch(self.view.module, images[:WATCHED_IMAGES], self._see)

    def gradients(self) -> None:
        """Record the gradients as the optimizer will see them, but for clipping."""
        if self._due:
            for name, parameter in self.view.named_parameters():
                if parameter.grad is not None:
                    prefix = self._hook.GRADIENT_PREFIX + self.view._module_name  # noqa: SLF001
                    self._hook._save_for_tensor(f"{prefix}_{name}", parameter.grad)  # noqa: SLF001
        if self.is_due("update_ratio"):
            self._before = [
                (name, parameter, parameter.detach().clone())
                for name, parameter in self.view.named_parameters()
                if parameter.requires_grad
            ]

    def updated(self) -> None:
        """Record by how much of their norm the weights have changed in this step."""
        ratios = [
            torch.linalg.vector_norm(parameter.detach() - before)
            / torch.linalg.vector_norm(before).clamp_min(torch.finfo(torch.float32).tiny)
            for _, parameter, before in self._before
        ]
        if ratios:
            for (name, _, _), ratio in zip(self._before, torch.stack(ratios).tolist(), strict=True):
                # Or smdebug's readers would take it for a weight.
                short = name.replace("weight", "w").replace("bias", "b")
                tensor = f"update_ratio/{self.view._module_name}_{short}"  # noqa: SLF001
                self._save("update_ratio", np.float32(ratio), tensor)
        self._before = []

    def loss(self, totals: Tensor) -> None:
        """Record the mean loss of (summed loss, right answers, images)."""
        if self.is_due("losses"):
            loss, _, images = totals.tolist()
            self._hook.record_tensor_value(LOSS, torch.tensor(loss / images))

    def evaluation(
        self, number: int, epoch: int, loss: float, confusion: npt.NDArray[np.int64]
    ) -> None:
        """Record an evaluation after `epoch` epochs: loss, and labels with predictions."""
        self._begin(ModeKeys.EVAL, epoch, number + epoch)
        if self.is_due("losses"):
            self._hook.record_tensor_value(LOSS, torch.tensor(loss))
        labels, predictions = np.nonzero(confusion)
        counts = confusion[labels, predictions]
        self._save("labels", np.repeat(labels, counts))
        self._save("predictions", np.repeat(predictions, counts))
        self.flush()

    def flush(self) -> None:
        """Finish the step's files."""
        self._hook._close_writers()  # noqa: SLF001
        if self._due:
            self._count_bytes()

    def close(self) -> None:
        """Finish all files, and say that the training is over."""
        try:
            self._hook.close()
            (self.directory / END_OF_JOB).touch()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Write nothing any more, at the end of the program either."""
        writer = self._hook.writer
        if writer is not None and writer._proto_writer is not None:  # noqa: SLF001
            writer._proto_writer.abandon()  # noqa: SLF001
        self._hook.writer = None
        forget_hook()

    def _prepare(self, first: int) -> None:
        """Drop what would be taken for this run's, or stop it from writing."""
        for name in (END_OF_JOB, CLAIM):
            (self.directory / name).unlink(missing_ok=True)
        for path in self.directory.glob("events/*"):
            if path.name.isdecimal() and int(path.name) >= first:
                shutil.rmtree(path)
        for path in self.directory.glob("index/*/*.json*"):
            number = path.name.partition("_")[0]
            if number.isdecimal() and int(number) >= first:
                path.unlink()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(path.stat().st_size for path in self.directory.rglob("*.*"))

    def _begin(self, mode: ModeKeys, number: int, file_number: int) -> None:
        hook = self._hook
        hook.set_mode(mode)
        # It counts up itself.
        hook.step, hook.mode_steps[mode] = file_number - 1, number - 1
        if hook.writer is not None:
            self.flush()
        hook.forward_pre_hook(self.view, ())
        self._due = frozenset(each.name for each in hook._get_collections_to_save_for_step())  # noqa: SLF001
        if self._due:
            hook.last_saved_step = hook.step

    def _see(self, name: str, kind: str | None, before: Tensor, after: Tensor) -> None:
        path, _, number = name.partition("|")
        self._hook._save_for_tensor(f"{path}_input_{number}", before)  # noqa: SLF001
        self._hook._save_for_tensor(f"{path}_output_{number}", after)  # noqa: SLF001
        if kind == "relu":
            self._save("relu_activity", activations.activity(after), f"{path}_activity_{number}")
        elif kind is not None and self.is_due("saturable_input"):
            values = activations.sample(before, SATURABLE_SIDE)
            self._save("saturable_input", values, f"{path}_input_{number}")

    def _save(self, collection: str, value: Tensor | npt.ArrayLike, name: str = "") -> None:
        """Record one tensor of a collection that is found by its name alone."""
        if self.is_due(collection):
            chosen = self._hook.get_collection(collection)
            chosen.add_tensor_name(name or collection)
            self._hook._write_for_tensor(name or collection, value, {chosen})  # noqa: SLF001

    def _count_bytes(self) -> None:
        folder = self.directory / "events" / f"{self._hook.step:012}"
        self._bytes += sum(path.stat().st_size for path in folder.glob("*"))
        names = sum(len(each.tensor_names) for each in self._hook.get_collections().values())
        if names > self._exported:
            # As long as new tensors come: smdebug itself writes the list once.
            self._hook.export_collections()
            self._exported = names
        if self._bytes > BUDGET:
            message = f"{self._bytes / 2**20:.0f} MB were written, and {BUDGET / 2**20:.0f} may be"
            raise BudgetError(message)
        if shutil.disk_usage(self.directory).free < FREE:
            message = f"less than {FREE / 2**20:.0f} MB are free on the disk"
            raise BudgetError(message)


def _file_number(step: int, epoch: int) -> int:
    """Return the number of a training step's files; evaluation 0 comes before the first one."""
    return step + epoch + 1


def _make_hook(document: Mapping[str, object]) -> TensorHook:
    with (
        tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file,
        mock.patch.dict(os.environ, VARIABLES),
    ):
        json.dump(document, file)
        file.flush()
        try:
            hook: TensorHook = TensorHook.create_from_json_file(file.name)
        except Exception:
            forget_hook()
            raise
        return hook
