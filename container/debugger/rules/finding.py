"""Results of rules: violations, findings and verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

NO_ISSUES, ISSUES = "NoIssuesFound", "IssuesFound"
INSUFFICIENT, ERROR = "InsufficientData", "Error"

Value = bool | int | float | str | None
"""Of a rule's parameter."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A step and a tensor at which a rule does not hold."""

    step: int
    tensor: str
    value: float
    sentence: str
    """The value found and its limit, in words."""

    cause: str = ""
    """The probable one; the rule's if empty."""

    remedy: str = ""
    """The rule's if empty."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Everything that a rule found."""

    datapoints: int
    violations: Sequence[Violation] = ()
    lacks: str = ""
    """Which data the rule still needs; empty if the data sufficed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A rule's finding with the parameters it used."""

    rule: str
    finding: Finding
    parameters: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""

    @property
    def status(self) -> str:
        """One of the four statuses of a rule."""
        if self.error:
            return ERROR
        if self.finding.violations:
            return ISSUES
        return INSUFFICIENT if self.finding.lacks else NO_ISSUES

    @property
    def worst(self) -> Violation | None:
        """The most important violation."""
        return self.finding.violations[0] if self.finding.violations else None

    def to_json(self) -> dict[str, object]:
        """Return the entry of SageMaker's rule reports, with status and details added."""
        lines = [f"{name}:{value}" for name, value in self.parameters.items()]
        violations = [asdict(violation) for violation in self.finding.violations]
        for row in violations:
            # JSON has no NaN.
            if not math.isfinite(row["value"]):
                row["value"] = str(row["value"])
        return {
            "RuleName": self.rule,
            "Status": self.status,
            "RuleTriggered": len(violations),
            "Violations": len(violations),
            "Datapoints": self.finding.datapoints,
            "RuleParameters": "\n".join(lines),
            "Details": {
                "lacks": self.finding.lacks,
                "error": self.error,
                "violations": violations,
            },
        }
