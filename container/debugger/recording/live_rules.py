"""Rules that judge a training while it runs."""

import logging
import time
from pathlib import Path

from container.debugger.reading import metric_log
from container.debugger.reading.records import Records
from container.debugger.rules.rule_choice import Rule, judge_all
from container.debugger.rules.verdict import ISSUES, Verdict

logger = logging.getLogger(__name__)

# Of the training's time, for judging it; what was asked to stop it is judged at every evaluation.
SHARE = 0.005


class LiveRules:
    """Judges what was recorded so far, and says what is new of it."""

    def __init__(self, rules: list[Rule]) -> None:
        """Judge by these rules."""
        self.rules = rules
        self.stopping_rules = {rule.name for rule in rules if rule.stops}
        self.stopping: str | None = None
        """The rule that wants the training to end."""
        self._losses: dict[tuple[int, str], float] = {}
        self._said: set[str] = set()
        self._files: object = None
        self._start, self._spent = time.monotonic(), 0.0

    def epoch(self, epoch: int, train_loss: float | None, val_loss: float) -> None:
        """Hear of an epoch's mean losses: all there is where no tensors are recorded."""
        self._losses[epoch, "EVAL"] = val_loss
        if train_loss is not None:
            self._losses[epoch, "TRAIN"] = train_loss

    def look(self, directory: Path | None) -> None:
        """Judge, unless judging has taken too much time already."""
        start = time.monotonic()
        is_due = self._spent <= SHARE * (start - self._start)
        if is_due or self.stopping_rules:
            self.judge(directory)
        self._spent += time.monotonic() - start

    def judge(self, directory: Path | None) -> list[Verdict]:
        """Judge the files of a directory, or the losses heard of; say what is new."""
        verdicts = judge_all(self.rules, self.records(directory))
        for verdict in verdicts:
            if verdict.status != ISSUES:
                continue
            if verdict.rule not in self._said and (worst := verdict.worst):
                self._said.add(verdict.rule)
                logger.warning(
                    "debugger: %s at step %d, %s: %s; probably %s; %s",
                    verdict.rule,
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
        """Return what a directory holds, or without one the losses heard of."""
        if directory is None or not (directory / "index").is_dir():
            return metric_log.of_losses(self._losses)
        # It needs smdebug, which has recorded them.
        from container.debugger.reading.tensor_files import TensorFiles  # noqa: PLC0415

        if not isinstance(self._files, TensorFiles):
            self._files = TensorFiles(directory)
        return self._files.records()
