"""Observer of a training loop: records tensors, profiles, and evaluates rules.

It does not affect the training: after an error it logs the reason once and stops recording.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from container.classifier.environment import JOB_NAME_VARIABLE
from container.classifier.errors import UserError
from container.debugger.profiler import profile
from container.debugger.profiler.profiler import Profiler, interval_of
from container.debugger.reading.records import LEARNING_RATE_FILE, LearningRate
from container.debugger.recording import hook_configuration
from container.debugger.recording.live_rules import LiveRules
from container.debugger.rules import selection

if TYPE_CHECKING:
    # It needs smdebug, which may be missing or broken.
    from container.debugger.recording.tensor_recorder import TensorRecorder

logger = logging.getLogger(__name__)

VERDICTS, REPORT = "debug-rules.json", "debug-report.html"

# Below SageMaker's output folder.
PROFILER = "profiler"

CONFIGURATION_VARIABLE = "SMDEBUG_CONFIG_FILE_PATH"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings of the debugger for one training job."""

    configuration_path: Path
    """SageMaker's debughookconfig.json."""

    profiler_configuration_path: Path | None = None
    """SageMaker's profilerconfig.json; None disables the profiler."""

    node: str = "algo-1"
    """This machine's name."""

    output_dir: Path
    """SageMaker's /opt/ml/output."""

    is_required: bool = False
    """Whether the job fails if tensors cannot be recorded."""

    rules: str | None = None
    """The rules to evaluate, as `selection.select` parses them."""


class Observer:
    """Receives the events of a training loop; without settings it does nothing."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Select the rules.

        Raises:
            UserError: the settings name an unknown rule.
        """
        self._settings = settings
        self._rules = LiveRules(selection.select(settings.rules)) if settings else None
        self._directory: Path | None = None
        self._profiler: Profiler | None = None
        self._has_profile = False
        self._recorder: TensorRecorder | None = None

    def start(
        self,
        module: nn.Module,
        normalize: Callable[[Tensor], Tensor],
        *,
        total_steps: int,
        first_step: int,
        epoch: int,
    ) -> None:
        """Record from `first_step` on, as the platform's file or the default policy defines.

        Args:
            module: the network, neither compiled nor distributed.
            normalize: converts images (N, 3, H, W) to the module's input.
            total_steps: of the whole training.
            first_step: number of the next step.
            epoch: number of complete epochs.

        Raises:
            UserError: recording is required, and smdebug or its configuration does not work.
        """
        settings = self._settings
        if settings is None:
            return
        self._start_profiler(settings, module)
        path = Path(os.environ.get(CONFIGURATION_VARIABLE) or settings.configuration_path)
        try:
            from container.debugger.recording.tensor_recorder import TensorRecorder  # noqa: PLC0415

            document = hook_configuration.read(path)
            document = hook_configuration.choose(document, settings.output_dir, total_steps)
            recorder = TensorRecorder(
                document, module, normalize, first_step=first_step, epoch=epoch
            )
        except Exception as error:
            # A broken installation can raise anything.
            reason = str(error) if isinstance(error, UserError) else _in_words(error)
            if settings.is_required:
                raise UserError(
                    f"debug=required, but tensors cannot be recorded: {reason}"
                ) from error
            logger.warning("debugger: tensors are not recorded: %s", reason)
        else:
            self._recorder, self._directory = recorder, recorder.directory
            logger.info("debugger: recording tensors in %s", recorder.directory)

    @property
    def stopping_rule(self) -> str | None:
        """The rule that found an issue and ends the training."""
        return self._rules.stopping if self._rules else None

    def may_stop(self, rule: str | None) -> bool:
        """Return whether a rule ends the training if it finds an issue."""
        return self._rules is not None and rule in self._rules.stopping_rules

    def begin_step(self, number: int, epoch: int) -> None:
        """Begin a training step."""
        if self._profiler is not None:
            self._profiler.begin_step(number)
        self._record(lambda recorder: recorder.begin_step(number, epoch))

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that times a phase of the training."""
        return self._profiler.phase(name) if self._profiler else nullcontext()

    def batch(self, labels: npt.NDArray[np.int64], images: Tensor) -> None:
        """Record a step's labels (N,) and images (N, 3, H, W) from 0 to 255."""
        self._record(lambda recorder: recorder.batch(labels, images))

    def gradients(self) -> None:
        """Record the complete gradients, before the optimizer's step."""
        self._record(lambda recorder: recorder.gradients())

    def updated(self) -> None:
        """Record the change of the weights, after the optimizer's step."""
        self._record(lambda recorder: recorder.updated())

    def loss(self, totals: Tensor) -> None:
        """Record a step's (summed loss, correct predictions, images), still on the device."""
        self._record(lambda recorder: recorder.loss(totals))

    def evaluation(
        self,
        number: int,
        epoch: int,
        loss: float,
        confusion: npt.NDArray[np.int64],
        train_loss: float | None,
        *,
        learning_rate: LearningRate = "low",
    ) -> None:
        """Record an evaluation after `epoch` epochs with `number` steps, and evaluate the rules."""
        self._record(lambda recorder: recorder.evaluation(number, epoch, loss, confusion))
        if self._directory is not None:
            # Also after the recording has stopped: the rules wait for a lower rate.
            with _logged("the learning rate is not recorded"):
                path = self._directory / LEARNING_RATE_FILE
                path.write_text(learning_rate, encoding="ascii")
        if self._rules is not None:
            self._rules.learning_rate = learning_rate
            self._rules.add_losses(epoch, train_loss, loss)
            with _logged("the rules failed"):
                self._rules.evaluate_if_due(self._directory)

    def close(self) -> None:
        """Finish the files and write the reports."""
        if self._profiler is not None:
            with _logged("the profile is incomplete"):
                self._profiler.close()
            self._profiler = None
        self._record(lambda recorder: recorder.close())
        self._recorder = None
        if self._rules is not None and self._settings is not None:
            with _logged("the reports are incomplete"):
                self._report(self._rules, self._settings)

    def _report(self, rules: LiveRules, settings: Settings) -> None:
        verdicts = rules.evaluate(self._directory)
        directory = settings.output_dir / "data"
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps([verdict.to_json() for verdict in verdicts], indent=2) + "\n"
        (directory / VERDICTS).write_text(text, encoding="utf-8")
        # It needs Jinja.
        from container.debugger import report  # noqa: PLC0415

        profiled = profile.read(settings.output_dir / PROFILER) if self._has_profile else None
        job = os.environ.get(JOB_NAME_VARIABLE) or "on this machine"
        page = report.render(rules.records(self._directory), profiled, verdicts, job)
        (directory / REPORT).write_text(page, encoding="utf-8")

    def _start_profiler(self, settings: Settings, module: nn.Module) -> None:
        if settings.profiler_configuration_path is None:
            return
        with _logged("profiling is off"):
            interval = interval_of(settings.profiler_configuration_path)
            if interval is not None:
                is_cuda = any(parameter.is_cuda for parameter in module.parameters())
                wait = torch.cuda.synchronize if is_cuda else None
                directory = settings.output_dir / PROFILER
                # It may contain the files of an earlier run.
                shutil.rmtree(directory, ignore_errors=True)
                self._profiler = Profiler(directory, settings.node, interval, wait)
                self._has_profile = True

    def _record(self, action: Callable[[TensorRecorder], None]) -> None:
        """Run an action if there is a recorder; an error ends the recording, not the training."""
        recorder = self._recorder
        if recorder is None:
            return
        try:
            action(recorder)
        except Exception as error:  # noqa: BLE001 - the training continues after any error
            self._recorder = None
            logger.warning("debugger: recording of tensors has stopped: %s", _in_words(error))
            recorder.abandon()


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Log an exception of the block instead of raising it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the training continues after any error
        logger.warning("debugger: %s: %s", what, _in_words(error))


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
