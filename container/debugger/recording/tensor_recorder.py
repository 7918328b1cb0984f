"""Recorder of a training loop's tensors in smdebug's files, without hooks in modules."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from container.debugger.recording import activations
from container.debugger.recording.hook_configuration import LOCAL_PATH, Document
from container.debugger.recording.patched_smdebug import (
    VARIABLES,
    ModeKeys,
    TensorHook,
    forget_hook,
)

logger = logging.getLogger(__name__)

END_OF_JOB, CLAIM = "training_job_end.ts", "claim.smd"

# In bytes: the most that one run writes, and the free disk space that it preserves.
BUDGET, MIN_FREE = 512 * 2**20, 1024 * 2**20

# Images of the batch in the pass that records activations.
ACTIVATION_IMAGES = 8

# Side of the recorded sample of an image, and of an input that may saturate.
PIXELS_SIDE, SATURABLE_SIDE = 8, 4

LOSS = "CrossEntropyLoss"

# Collections that need no pass to record activations.
DIRECT = frozenset(
    {"losses", "weights", "biases", "gradients", "labels", "predictions", "update_ratio"}
    | {"input_image", "default"}
)


class BudgetError(Exception):
    """The run has reached a limit on disk space."""


class TensorRecorder:
    """Writes the tensors of a configuration; the caller handles all exceptions.

    File numbers count the steps of training and evaluation, and depend only on the training's step:
    a run that continues from a checkpoint writes the files of an uninterrupted run.
    """

    def __init__(
        self,
        document: Document,
        module: nn.Module,
        normalize: Callable[[Tensor], Tensor],
        *,
        first_step: int,
        epoch: int,
    ) -> None:
        """Record `module` from a step on, and delete an earlier run's files of later steps.

        `normalize` converts images (N, 3, H, W) to the module's input.

        Raises:
            OSError: the directory is not writable.
        """
        self.directory = Path(document[LOCAL_PATH])
        self._module, self._normalize = module, normalize
        self._name = type(module).__name__
        self._prepare(_file_number(first_step, epoch))
        self._hook = _make_hook(document)
        self._due: frozenset[str] = frozenset()
        self._before: list[tuple[str, nn.Parameter, Tensor]] = []
        self._exported = 0

    def begin_step(self, number: int, epoch: int) -> None:
        """Begin a training step, and record the weights before it."""
        self._begin(ModeKeys.TRAIN, number, _file_number(number, epoch))

    def batch(self, labels: npt.NDArray[np.int64], images: Tensor) -> None:
        """Record a batch's labels (N,), images (N, 3, H, W), and the activations of layers."""
        self._save("labels", labels)
        needs_activations = bool(self._due - DIRECT)
        if needs_activations or "input_image" in self._due:
            inputs = self._normalize(images)
            self._save("input_image", activations.sample(inputs, PIXELS_SIDE))
            if needs_activations:
                activations.observe(self._module, inputs[:ACTIVATION_IMAGES], self._save_layer)

    def gradients(self) -> None:
        """Record the gradients before clipping and the optimizer's step."""
        if self._due:
            prefix = self._hook.GRADIENT_PREFIX + self._name
            for name, parameter in self._module.named_parameters():
                if parameter.grad is not None:
                    self._hook._save_for_tensor(f"{prefix}_{name}", parameter.grad)  # noqa: SLF001
        if "update_ratio" in self._due:
            self._before = [
                (name, parameter, parameter.detach().clone())
                for name, parameter in self._module.named_parameters()
                if parameter.requires_grad
            ]

    def updated(self) -> None:
        """Record the ratio of this step's change to the weights' norm."""
        ratios = [
            torch.linalg.vector_norm(parameter.detach() - before)
            / torch.linalg.vector_norm(before).clamp_min(torch.finfo(torch.float32).tiny)
            for _, parameter, before in self._before
        ]
        if ratios:
            for (name, _, _), ratio in zip(self._before, torch.stack(ratios).tolist(), strict=True):
                # Otherwise smdebug's readers would consider it a weight.
                short = name.replace("weight", "w").replace("bias", "b")
                self._save("update_ratio", np.float32(ratio), f"update_ratio/{self._name}_{short}")
        self._before = []

    def loss(self, totals: Tensor) -> None:
        """Record the mean loss of (summed loss, correct predictions, images)."""
        if "losses" in self._due:
            loss, _, images = totals.tolist()
            self._hook.record_tensor_value(LOSS, torch.tensor(loss / images))

    def evaluation(
        self, number: int, epoch: int, loss: float, confusion: npt.NDArray[np.int64]
    ) -> None:
        """Record an evaluation after `epoch` epochs: loss, and labels with predictions."""
        self._begin(ModeKeys.EVAL, epoch, number + epoch)
        if "losses" in self._due:
            self._hook.record_tensor_value(LOSS, torch.tensor(loss))
        labels, predictions = np.nonzero(confusion)
        counts = confusion[labels, predictions]
        self._save("labels", np.repeat(labels, counts))
        self._save("predictions", np.repeat(predictions, counts))
        self.flush()

    def flush(self) -> None:
        """Finish the step's files.

        Raises:
            BudgetError: the files exceed the budget, or the disk is nearly full.
        """
        self._hook._close_writers()  # noqa: SLF001
        if not self._due:
            return
        folder = self.directory / "events" / f"{self._hook.step:012}"
        self._bytes += sum(path.stat().st_size for path in folder.glob("*"))
        names = sum(len(c.tensor_names) for c in self._hook.get_collections().values())
        if names > self._exported:
            # For every new tensor: smdebug itself writes the list only once.
            self._hook.export_collections()
            self._exported = names
        if self._bytes > BUDGET:
            raise BudgetError(
                f"{self._bytes / 2**20:.0f} MB are written; the limit is {BUDGET / 2**20:.0f} MB"
            )
        if shutil.disk_usage(self.directory).free < MIN_FREE:
            raise BudgetError(f"less than {MIN_FREE / 2**20:.0f} MB of disk space are free")

    def close(self) -> None:
        """Finish all files, and mark the training as ended."""
        try:
            self._hook.close()
            (self.directory / END_OF_JOB).touch()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stop writing, also at the end of the program."""
        writer = self._hook.writer
        if writer is not None and writer._proto_writer is not None:  # noqa: SLF001
            writer._proto_writer.abandon()  # noqa: SLF001
        self._hook.writer = None
        forget_hook()

    def _prepare(self, first: int) -> None:
        """Delete files of an earlier run that would mix with this run's or stop it from writing."""
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
        # The hook increments both.
        hook.step, hook.mode_steps[mode] = file_number - 1, number - 1
        if hook.writer is not None:
            self.flush()
        # The part of a module's interface that the hook uses.
        view = SimpleNamespace(
            _module_name=self._name,
            _get_name=lambda: self._name,
            named_parameters=self._module.named_parameters,
        )
        hook.forward_pre_hook(view, ())
        self._due = frozenset(c.name for c in hook._get_collections_to_save_for_step())  # noqa: SLF001
        if self._due:
            hook.last_saved_step = hook.step

    def _save_layer(self, name: str, kind: str | None, before: Tensor, after: Tensor) -> None:
        path, _, number = name.partition("|")
        self._hook._save_for_tensor(f"{path}_input_{number}", before)  # noqa: SLF001
        self._hook._save_for_tensor(f"{path}_output_{number}", after)  # noqa: SLF001
        if kind == "relu":
            self._save("relu_activity", activations.activity(after), f"{path}_activity_{number}")
        elif kind is not None:
            values = activations.sample(before, SATURABLE_SIDE)
            self._save("saturable_input", values, f"{path}_input_{number}")

    def _save(self, collection: str, value: Tensor | npt.ArrayLike, name: str = "") -> None:
        """Record a tensor in one collection, which contains it by name."""
        if collection in self._due:
            chosen = self._hook.get_collection(collection)
            chosen.add_tensor_name(name or collection)
            self._hook._write_for_tensor(name or collection, value, {chosen})  # noqa: SLF001


def _file_number(step: int, epoch: int) -> int:
    """Return the number of a training step's files; evaluation 0 precedes step 0."""
    return step + epoch + 1


def _make_hook(document: Document) -> TensorHook:
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
