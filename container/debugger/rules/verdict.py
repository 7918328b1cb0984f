"""A rule's verdict on a training, and the parameters that it was judged by."""

import inspect
import logging
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from container.classifier.errors import UserError
from container.debugger.reading.records import Records
from container.debugger.rules import catalog
from container.debugger.rules.finding import Finding, Violation

logger = logging.getLogger(__name__)

NO_ISSUES, ISSUES, INSUFFICIENT, ERROR = (
    "NoIssuesFound",
    "IssuesFound",
    "InsufficientData",
    "Error",
)

Value = bool | int | float | str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a rule says, with the parameters that it was judged by."""

    rule: str
    status: str
    finding: Finding
    parameters: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""

    @property
    def worst(self) -> Violation | None:
        """The violation to look at first."""
        return self.finding.violations[0] if self.finding.violations else None

    def to_json(self) -> dict[str, object]:
        """Return the document that SageMaker's reports have of a rule, and what is ours."""
        lines = [f"{name}:{value}" for name, value in self.parameters.items()]
        return {
            "RuleName": self.rule,
            "Status": self.status,
            "RuleTriggered": len(self.finding.violations),
            "Violations": len(self.finding.violations),
            "Datapoints": self.finding.datapoints,
            "RuleParameters": "\n".join(lines),
            "Details": {
                "lacks": self.finding.lacks,
                "error": self.error,
                "violations": [
                    {
                        "step": each.step,
                        "tensor": each.tensor,
                        # JSON knows no NaN.
                        "value": each.value if np.isfinite(each.value) else str(each.value),
                        "sentence": each.sentence,
                        "cause": each.cause,
                        "remedy": each.remedy,
                    }
                    for each in self.finding.violations
                ],
            },
        }


def judge(rule: str, records: Records, parameters: Mapping[str, Value]) -> Verdict:
    """Return a rule's verdict; an error of its own is one too."""
    used = {**defaults(rule), **parameters}
    try:
        finding = catalog.RULES[rule](records, **used)
    except UserError:
        raise
    except Exception as error:
        # A tensor of an unforeseen shape, say, in another job's files.
        logger.debug("rule %s failed", rule, exc_info=True)
        said = f"{type(error).__name__}: {error}"
        return Verdict(rule=rule, status=ERROR, finding=Finding(0), parameters=used, error=said)
    status = INSUFFICIENT if finding.lacks else NO_ISSUES
    if finding.violations:
        status = ISSUES
    return Verdict(rule=rule, status=status, finding=finding, parameters=used)


def defaults(rule: str) -> dict[str, Value]:
    """Return a rule's parameters."""
    signature = inspect.signature(catalog.RULES[rule])
    return {name: own.default for name, own in signature.parameters.items() if name != "records"}


def parse(rule: str, name: str, text: str) -> Value:
    """Return a parameter's value, which SageMaker makes a string.

    Raises:
        UserError: the rule has no such parameter, or it is of another type.
    """
    known = {**defaults(rule)}
    if name not in known:
        message = f"{rule} has no parameter {name!r}; it has {', '.join(known)}"
        raise UserError(message)
    hint = typing.get_type_hints(catalog.RULES[rule])[name]
    kinds = typing.get_args(hint) or (hint,)
    if type(None) in kinds and text.strip().lower() in {"", "none", "null"}:
        return None
    try:
        if bool in kinds:
            return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
        if int in kinds:
            return int(text)
        return float(text) if float in kinds else text
    except (ValueError, KeyError):
        kind = next(kind.__name__ for kind in kinds if kind is not type(None))
        message = f"{rule}: {name} must be of type {kind}, got {text!r}"
        raise UserError(message) from None
