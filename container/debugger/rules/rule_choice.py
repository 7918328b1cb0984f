"""Which rules judge a training, and by which parameters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from container.classifier.errors import UserError
from container.debugger.reading.records import Records
from container.debugger.rules.catalog import ON_REQUEST, RULES
from container.debugger.rules.verdict import Value, Verdict, judge, parse

# As AWS calls them in places.
OTHER_NAMES = {"StalledTrainingRule": "StalledTraining"}

# Of parameters of the SDK's rules: those that are no rule's own.
NO_PARAMETERS = frozenset({"rule_to_invoke", "base_trial", "other_trials", "action_json"})


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with the parameters that are not its defaults."""

    name: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    stops: bool = False
    """Whether the training shall end when it finds something."""


def choose(text: str | None) -> list[Rule]:
    """Return the rules that a hyperparameter or an option names.

    Nothing at all names every rule that needs no limits to be set; else names, by commas, or the
    DebugRuleConfigurations of a SageMaker training job as JSON. An action `stoptraining` of the
    SDK's, or a `!` after a name, makes a rule end the training.

    Raises:
        UserError: a rule or a parameter is unknown, or a value of a wrong type.
    """
    if text is None or not text.strip():
        return [Rule(name) for name in RULES if name not in ON_REQUEST]
    if text.lstrip().startswith(("[", "{")):
        return _from_json(text)
    if text.strip().lower() == "none":
        return []
    names = [part.strip() for part in text.split(",") if part.strip()]
    return [Rule(_known(name.rstrip("!")), stops=name.endswith("!")) for name in names]


def with_parameters(rules: list[Rule], pairs: list[str]) -> list[Rule]:
    """Return the rules with parameters such as `Overfit.patience=3`.

    Raises:
        UserError: no such rule is chosen, or it has no such parameter.
    """
    chosen = {rule.name: rule for rule in rules}
    for pair in pairs:
        place, is_given, value = pair.partition("=")
        name, _, parameter = place.partition(".")
        name = _known(name)
        if not (is_given and parameter) or name not in chosen:
            message = f"a parameter must be RULE.NAME=VALUE of a chosen rule, got {pair!r}"
            raise UserError(message)
        rule = chosen[name]
        own = {**rule.parameters, parameter: parse(name, parameter, value)}
        chosen[name] = Rule(name, own, rule.stops)
    return list(chosen.values())


def judge_all(rules: list[Rule], records: Records) -> list[Verdict]:
    """Return every rule's verdict."""
    return [judge(rule.name, records, rule.parameters) for rule in rules]


def _from_json(text: str) -> list[Rule]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"the rules are not JSON: {error}"
        raise UserError(message) from None
    rules = []
    for entry in document if isinstance(document, list) else [document]:
        given = entry.get("RuleParameters") if isinstance(entry, dict) else None
        if not isinstance(given, dict):
            message = f"a rule must be an object with RuleParameters, got {entry!r}"
            raise UserError(message)
        invoked = given.get("rule_to_invoke") or entry.get("RuleConfigurationName")
        name = _known(str(invoked))
        own = {
            str(key): parse(name, str(key), str(value))
            for key, value in given.items()
            if key not in NO_PARAMETERS
        }
        rules.append(Rule(name, own, "stoptraining" in str(given.get("action_json", "")).lower()))
    return rules


def _known(name: str) -> str:
    name = OTHER_NAMES.get(name, name)
    if name not in RULES:
        message = f"there is no rule {name!r}; there are {', '.join(RULES)}"
        raise UserError(message)
    return name
