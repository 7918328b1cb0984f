"""AWS's rules on profiles, by name."""

from container.debugger.profiler import step_rules, system_rules
from container.debugger.profiler.profile import Profile
from container.debugger.rules.rule import Verdict, collect

RULES = collect(system_rules, step_rules)


def evaluate_all(profile: Profile) -> list[Verdict]:
    """Return every profiler rule's verdict with its default parameters."""
    return [rule.evaluate(profile) for rule in RULES.values()]
