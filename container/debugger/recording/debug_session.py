"""What a training loop tells of itself, to whoever listens; the training is the same without.

No listener can harm it: one that fails says why, once, and is asked nothing more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from container.classifier.errors import UserError
from container.debugger.profiler import reading
from container.debugger.recording import hook_configuration
from container.debugger.recording.live_rules import LiveRules
from container.debugger.rules import rule_choice

if TYPE_CHECKING:
    # It needs smdebug, which may be missing or broken.
    from container.debugger.profiler.profiler import Profiler
    from container.debugger.recording.tensor_recorder import TensorRecorder

logger = logging.getLogger(__name__)

VERDICTS, REPORT = "debug-rules.json", "debug-report.html"

# Below SageMaker's output folder.
PROFILER = "profiler"

CONFIGURATION_VARIABLE = "SMDEBUG_CONFIG_FILE_PATH"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Whether, where and by what a training is watched."""

    configuration_path: Path
    """Of the platform's file."""

    profiler_configuration_path: Path | None = None
    """Of the platform's other file; None: nothing is timed."""

    node: str = "algo-1"
    """This machine's name."""

    output_dir: Path
    """SageMaker's /opt/ml/output."""

    is_first: bool = True
    """Whether this process writes the reports: those of the others would lie over them."""

    is_required: bool = False
    """Fail the job rather than train without records."""

    rules: str | None = None
    """Which judge the training, as `rule_choice.choose` reads it."""


class Observer:
    """Passes on what the loop tells; without settings nothing happens."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Begin without a recorder.

        Raises:
            UserError: the settings name rules that don't exist.
        """
        self._settings = settings
        self._rules = LiveRules(rule_choice.choose(settings.rules)) if settings else None
        self._directory: Path | None = None
        self._profiler: Profiler | None = None
        self._has_profile = False
        self._recorder: TensorRecorder | None = None
        self._normalize: Callable[[Tensor], Tensor] | None = None
        self.status = "off"
        """What became of the recording."""

    def start(
        self,
        module: nn.Module,
        normalize: Callable[[Tensor], Tensor],
        *,
        total_steps: int,
        first_step: int,
        epoch: int,
    ) -> None:
        """Record from `first_step` on, by the platform's file or by our policy.

        `normalize` makes what the module sees of images (N, 3, H, W).

        Raises:
            UserError: it is required, and smdebug doesn't work or its configuration is wrong.
        """
        settings = self._settings
        if settings is None:
            return
        self._normalize = normalize
        self._start_profiler(settings, module)
        path = Path(os.environ.get(CONFIGURATION_VARIABLE) or settings.configuration_path)
        try:
            from container.debugger.recording.tensor_recorder import TensorRecorder  # noqa: PLC0415

            document = hook_configuration.read(path)
            chosen = hook_configuration.choose(document, settings.output_dir, total_steps)
            self._recorder = TensorRecorder(chosen, module, first_step=first_step, epoch=epoch)
        except Exception as error:
            # Whatever it is: a broken installation has many faces.
            reason = str(error) if isinstance(error, UserError) else _in_words(error)
            if settings.is_required:
                message = f"debug=required, and no tensors can be recorded: {reason}"
                raise UserError(message) from error
            self.status = f"failed: {reason}"
            logger.warning("debugger: no tensors are recorded: %s", reason)
        else:
            self.status, self._directory = "recording", self._recorder.directory
            logger.info("debugger: tensors are recorded in %s", self._recorder.directory)

    @property
    def stopping_rule(self) -> str | None:
        """The rule that has found something and was told to end the training then."""
        return self._rules.stopping if self._rules else None

    def may_stop(self, rule: str | None) -> bool:
        """Tell whether a rule is one that shall end the training when it finds something."""
        return self._rules is not None and rule in self._rules.stopping_rules

    def begin_step(self, number: int, epoch: int) -> None:
        """Hear of a step of training before it is made."""
        if self._profiler is not None:
            self._profiler.begin_step(number)
        self._tell(lambda recorder: recorder.begin_step(number, epoch))

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return the context in which a phase of the training runs."""
        return self._profiler.phase(name) if self._profiler else contextlib.nullcontext()

    def batch(self, labels: npt.NDArray[np.int64], images: Tensor) -> None:
        """Hear of a step's labels (N,) and images (N, 3, H, W) of 0 to 255."""

        def tell(recorder: TensorRecorder) -> None:
            recorder.labels(labels)
            if recorder.is_watching and self._normalize is not None:
                recorder.images(self._normalize(images))

        self._tell(tell)

    def gradients(self) -> None:
        """Hear that the gradients are whole."""
        self._tell(lambda recorder: recorder.gradients())

    def updated(self) -> None:
        """Hear that the weights have changed."""
        self._tell(lambda recorder: recorder.updated())

    def loss(self, totals: Tensor) -> None:
        """Hear of the step's (summed loss, right answers, images), on their device."""
        self._tell(lambda recorder: recorder.loss(totals))

    def evaluation(
        self,
        number: int,
        epoch: int,
        loss: float,
        confusion: npt.NDArray[np.int64],
        train_loss: float | None,
    ) -> None:
        """Hear of an evaluation after `epoch` epochs of together `number` steps."""
        self._tell(lambda recorder: recorder.evaluation(number, epoch, loss, confusion))
        if self._rules is not None:
            self._rules.epoch(epoch, train_loss, loss)
            with _harmless("the rules fail"):
                self._rules.look(self._directory)

    def close(self) -> None:
        """Hear that the training is over."""
        if self._profiler is not None:
            with _harmless("the profile is not whole"):
                self._profiler.close()
            self._profiler = None
        self._tell(lambda recorder: recorder.close())
        if self._recorder is not None:
            self._recorder, self.status = None, "recorded"
        settings = self._settings
        if self._rules is not None and settings is not None and settings.is_first:
            with _harmless("not all of its reports are written"):
                self._report(self._rules, settings)

    def _report(self, rules: LiveRules, settings: Settings) -> None:
        verdicts = rules.judge(self._directory)
        directory = settings.output_dir / "data"
        directory.mkdir(parents=True, exist_ok=True)
        document = [verdict.to_json() for verdict in verdicts]
        text = json.dumps(document, indent=2) + "\n"
        (directory / VERDICTS).write_text(text, encoding="utf-8")
        # It needs Jinja.
        from container.debugger import report  # noqa: PLC0415

        profile = reading.read(settings.output_dir / PROFILER) if self._has_profile else None
        page = report.render(rules.records(self._directory), profile, verdicts)
        (directory / REPORT).write_text(page, encoding="utf-8")

    def _start_profiler(self, settings: Settings, module: nn.Module) -> None:
        if settings.profiler_configuration_path is None:
            return
        with _harmless("nothing is profiled"):
            # It needs psutil.
            from container.debugger.profiler.profiler import Profiler, interval_of  # noqa: PLC0415

            interval = interval_of(settings.profiler_configuration_path)
            if interval is not None:
                is_cuda = any(parameter.is_cuda for parameter in module.parameters())
                wait = torch.cuda.synchronize if is_cuda else None
                directory = settings.output_dir / PROFILER
                # Of an earlier run in the same folder.
                shutil.rmtree(directory, ignore_errors=True)
                self._profiler = Profiler(directory, settings.node, interval, wait)
                self._has_profile = True

    def _tell(self, say: Callable[[TensorRecorder], None]) -> None:
        recorder = self._recorder
        if recorder is None:
            return
        try:
            say(recorder)
        except Exception as error:  # noqa: BLE001 - the training continues whatever it is
            self._recorder = None
            self.status = f"ended: {_in_words(error)}"
            logger.warning("debugger: no more tensors are recorded: %s", _in_words(error))
            recorder.abandon()


@contextmanager
def _harmless(what: str) -> Iterator[None]:
    """Say that `what` happened rather than raise."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the training continues whatever it is
        logger.warning("debugger: %s: %s", what, _in_words(error))


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
