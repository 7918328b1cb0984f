"""Rules, each with AWS's name and a function, and their results: findings and verdicts."""

import inspect
import logging
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType

from container.classifier.errors import UserError
from container.classifier.parsing import Value, parse

logger = logging.getLogger(__name__)

NO_ISSUES, ISSUES = "NoIssuesFound", "IssuesFound"
INSUFFICIENT, ERROR = "InsufficientData", "Error"


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

    unit: str = "step"
    """What `step` counts: each step, or each evaluation."""


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


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; call it with its source (records or a profile) and parameters by keyword.

    The keyword defaults of its function are the parameters.
    """

    name: str
    function: Callable[..., Finding]
    needs_limits: bool
    """Whether the default parameters check nothing, so that the rule runs only when selected."""

    cause: str
    """The probable cause of violations that do not have their own."""

    remedy: str
    """The remedy for violations that do not have their own."""

    def __call__(self, source: object, **parameters: Value) -> Finding:
        """Return what the rule finds in its source."""
        return self.function(source, **parameters)

    @property
    def description(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").partition("\n")[0]

    @property
    def defaults(self) -> dict[str, Value]:
        """The parameters with their default values."""
        _, *parameters = inspect.signature(self.function).parameters.values()
        return {parameter.name: parameter.default for parameter in parameters}

    def parse(self, name: str, text: str) -> Value:
        """Convert the text of a parameter, which SageMaker sends as a string.

        Raises:
            UserError: the rule has no such parameter, or the text is of another type.
        """
        if name not in self.defaults:
            raise UserError(
                f"{self.name} has no parameter {name!r}; it has {', '.join(self.defaults)}"
            )
        hint = typing.get_type_hints(self.function)[name]
        return parse(f"{self.name}: {name}", hint, text)

    def evaluate(self, source: object, parameters: Mapping[str, Value] | None = None) -> Verdict:
        """Return the verdict on a source; an exception of the rule becomes an `Error` verdict.

        Raises:
            UserError: a parameter does not fit the source.
        """
        used = {**self.defaults, **(parameters or {})}
        finding, error = Finding(0), ""
        try:
            finding = self(source, **used)
        except UserError:
            raise
        except Exception as raised:
            # For example, a tensor of an unexpected shape in another job's files.
            logger.debug("rule %s failed", self.name, exc_info=True)
            error = f"{type(raised).__name__}: {raised}"
        violations = [
            replace(found, cause=found.cause or self.cause, remedy=found.remedy or self.remedy)
            for found in finding.violations
        ]
        finding = replace(finding, violations=violations)
        return Verdict(rule=self.name, finding=finding, parameters=used, error=error)


def rule(
    name: str, *, needs_limits: bool = False, cause: str = "", remedy: str = ""
) -> Callable[[Callable[..., Finding]], Rule]:
    """Make a function the rule that AWS calls `name`."""
    return lambda function: Rule(name, function, needs_limits, cause, remedy)


def collect(*modules: ModuleType) -> dict[str, Rule]:
    """Return the rules that modules define, by name, in their order."""
    values = [value for module in modules for value in vars(module).values()]
    return {value.name: value for value in values if isinstance(value, Rule)}
