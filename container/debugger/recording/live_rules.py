"""Rules that evaluate a training while it runs."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from container.debugger.reading import metric_log
from container.debugger.reading.records import LearningRate, Records
from container.debugger.rules.rule import ISSUES, Verdict
from container.debugger.rules.selection import SelectedRule, evaluate_all

if TYPE_CHECKING:
    # It needs smdebug, which may be missing or broken.
    from container.debugger.reading.tensor_files import TensorFiles

logger = logging.getLogger(__name__)

# Largest fraction of the training's time for evaluating rules; rules that stop it have no limit.
MAX_FRACTION = 0.005


class LiveRules:
    """Evaluates the records so far; logs each rule's first issue, and that it has disappeared."""

    def __init__(self, rules: list[SelectedRule]) -> None:
        """Set the rules."""
        self.rules = rules
        self.stopping_rules = {rule.name for rule in rules if rule.stops}
        self.stopping: str | None = None
        """The rule that ends the training."""
        self.learning_rate: LearningRate = "low"
        """The phase of its schedule at the last evaluation."""

        self._losses: dict[tuple[int, str], float] = {}
        self._logged: set[str] = set()
        self._files: TensorFiles | None = None
        self._start, self._spent = time.monotonic(), 0.0

    def add_losses(self, epoch: int, train_loss: float | None, val_loss: float) -> None:
        """Add an epoch's mean losses, which the rules use if no tensors are recorded."""
        self._losses[epoch, "EVAL"] = val_loss
        if train_loss is not None:
            self._losses[epoch, "TRAIN"] = train_loss

    def evaluate_if_due(self, directory: Path | None) -> None:
        """Evaluate, unless evaluations have taken too much time so far."""
        start = time.monotonic()
        is_due = self._spent <= MAX_FRACTION * (start - self._start)
        if is_due or self.stopping_rules:
            self.evaluate(directory)
        self._spent += time.monotonic() - start

    def evaluate(self, directory: Path | None) -> list[Verdict]:
        """Return the verdicts on the files in a directory, or on the losses, and log new issues."""
        verdicts = evaluate_all(self.rules, self.records(directory))
        for verdict in verdicts:
            if verdict.status != ISSUES:
                if verdict.rule in self._logged:
                    # Else the report would contradict the log.
                    self._logged.remove(verdict.rule)
                    logger.info("debugger: %s no longer finds an issue", verdict.rule)
                continue
            if verdict.rule not in self._logged and (worst := verdict.worst):
                self._logged.add(verdict.rule)
                logger.warning(
                    "debugger: %s at %s %d, %s: %s; probable cause: %s; remedy: %s",
                    verdict.rule,
                    worst.unit,
                    worst.step,
                    worst.tensor,
                    worst.sentence,
                    worst.cause,
                    worst.remedy,
                )
            if verdict.rule in self.stopping_rules:
                self.stopping = self.stopping or verdict.rule
        return verdicts

    def records(self, directory: Path | None) -> Records:
        """Return the records in a directory, or the losses without a directory."""
        if directory is None or not (directory / "index").is_dir():
            records = metric_log.of_losses(self._losses)
            return replace(records, learning_rate=self.learning_rate)
        if self._files is None:
            from container.debugger.reading.tensor_files import TensorFiles  # noqa: PLC0415

            self._files = TensorFiles(directory)
        return self._files.records()
