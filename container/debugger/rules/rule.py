"""Definition of a rule: AWS's name, and a function whose keyword defaults are its parameters."""

import inspect
import logging
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType

from container.classifier.errors import UserError
from container.debugger.rules.finding import Finding, Value, Verdict

logger = logging.getLogger(__name__)

BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; call it with its source (records or a profile) and parameters by keyword."""

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
        return {each.name: each.default for each in parameters}

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
        kinds = typing.get_args(hint) or (hint,)
        if type(None) in kinds and text.strip().lower() in {"", "none", "null"}:
            return None
        kind: Callable[[str], Value] = kinds[0]
        try:
            return BOOLEANS[text.strip().lower()] if kind is bool else kind(text)
        except (ValueError, KeyError):
            raise UserError(
                f"{self.name}: {name} must be of type {kinds[0].__name__}, got {text!r}"
            ) from None

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
            replace(each, cause=each.cause or self.cause, remedy=each.remedy or self.remedy)
            for each in finding.violations
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
