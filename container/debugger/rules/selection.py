"""Selection of the rules that evaluate a training, with their parameters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from container.classifier.errors import UserError
from container.classifier.parsing import Value
from container.debugger.reading.records import Records
from container.debugger.rules import data, layers, losses, weights
from container.debugger.rules.rule import Verdict, collect

# AWS's rules on tensors, by name.
RULES = collect(losses, layers, weights, data)

# Names that AWS also uses.
ALIASES = {"StalledTrainingRule": "StalledTraining"}

# Entries of the SDK's RuleParameters that are not parameters of the rule.
NOT_PARAMETERS = frozenset({"rule_to_invoke", "base_trial", "other_trials", "action_json"})


@dataclass(frozen=True, slots=True)
class SelectedRule:
    """A rule's name with the parameters that differ from the defaults."""

    name: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    stops: bool = False
    """Whether an issue found by the rule ends the training."""


def select(text: str | None) -> list[SelectedRule]:
    """Return the rules that a hyperparameter or an option selects.

    Args:
        text: None or empty selects every rule that needs no limits. `none` selects no rule.
            Otherwise comma-separated names, or the DebugRuleConfigurations of a SageMaker training
            job as JSON. A `!` after a name, or the SDK's action `stoptraining`, makes a rule end
            the training.

    Raises:
        UserError: a rule or a parameter is unknown, or a value has a wrong type.
    """
    if text is None or not text.strip():
        return [SelectedRule(rule.name) for rule in RULES.values() if not rule.needs_limits]
    if text.lstrip().startswith(("[", "{")):
        return _from_json(text)
    if text.strip().lower() == "none":
        return []
    names = [part.strip() for part in text.split(",") if part.strip()]
    return [SelectedRule(_known(name.rstrip("!")), stops=name.endswith("!")) for name in names]


def with_parameters(rules: list[SelectedRule], pairs: list[str]) -> list[SelectedRule]:
    """Return the rules with parameters such as `Overfit.patience=3`.

    Raises:
        UserError: the rule is not selected, or has no such parameter.
    """
    selected = {rule.name: rule for rule in rules}
    for pair in pairs:
        key, is_given, value = pair.partition("=")
        name, _, parameter = key.partition(".")
        name = _known(name)
        if not (is_given and parameter) or name not in selected:
            raise UserError(f"a parameter must be RULE.NAME=VALUE of a selected rule, got {pair!r}")
        rule = selected[name]
        parsed = RULES[name].parse(parameter, value)
        selected[name] = replace(rule, parameters={**rule.parameters, parameter: parsed})
    return list(selected.values())


def evaluate_all(rules: list[SelectedRule], records: Records) -> list[Verdict]:
    """Return every rule's verdict."""
    return [RULES[rule.name].evaluate(records, rule.parameters) for rule in rules]


def _from_json(text: str) -> list[SelectedRule]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the rules are not JSON: {error}") from None
    rules = []
    for entry in document if isinstance(document, list) else [document]:
        given = entry.get("RuleParameters") if isinstance(entry, dict) else None
        if not isinstance(given, dict):
            raise UserError(f"a rule must be an object with RuleParameters, got {entry!r}")
        name = _known(str(given.get("rule_to_invoke") or entry.get("RuleConfigurationName")))
        parameters = {
            str(key): RULES[name].parse(str(key), str(value))
            for key, value in given.items()
            if key not in NOT_PARAMETERS
        }
        stops = "stoptraining" in str(given.get("action_json", "")).lower()
        rules.append(SelectedRule(name, parameters, stops))
    return rules


def _known(name: str) -> str:
    """Return a rule's name; the SDK's functions and the settings file have `all_zero`."""
    known = {rule.lower(): rule for rule in RULES} | {
        alias.lower(): rule for alias, rule in ALIASES.items()
    }
    found = known.get(name.replace("_", "").lower())
    if found is None:
        raise UserError(f"unknown rule {name!r}; the rules are {', '.join(RULES)}")
    return found
