"""Metrics that SageMaker parses from a job's log, tested on real lines before a job starts."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from container.classifier.metric_lines import METRIC_DEFINITIONS, METRIC_NAMES
from image_classifier.settings.schema import Settings
from image_classifier.settings.section import Mistake
from image_classifier.settings.suggestion import suggestion

# Log lines of the training program, one of each kind.
LOG = Path(__file__).with_name("log_lines.txt")

# Limits of the API.
MAX_DEFINITIONS, MAX_EXPRESSION = 20, 500


def expressions(settings: Settings) -> dict[str, str]:
    """Return every metric's regular expression: the program's metrics, then the settings' own."""
    return {metric["Name"]: metric["Regex"] for metric in METRIC_DEFINITIONS} | settings.metrics


def definitions(settings: Settings) -> list[dict[str, str]]:
    """Return the metric definitions of a job's request."""
    return [{"Name": name, "Regex": regex} for name, regex in expressions(settings).items()]


def mistakes(settings: Settings) -> Iterator[Mistake]:
    """Yield what is wrong with the metrics and the tuning objective."""
    lines = LOG.read_text(encoding="utf-8").splitlines()
    for name, pattern in settings.metrics.items():
        message = mistake(name, pattern, lines)
        if message is not None:
            yield Mistake(("metrics", name), message)
    known = list(expressions(settings))
    if len(known) > MAX_DEFINITIONS:
        yield Mistake(("metrics",), f"are more than {MAX_DEFINITIONS}, including the program's")
    objective = known[0] if settings.tuning is None else settings.tuning.objective
    if objective not in known:
        hint = suggestion(objective, known)
        yield Mistake(("tuning", "objective"), f"names an unknown metric, {objective!r}{hint}")
    if objective == "images_per_second":
        yield Mistake(("tuning", "objective"), "is a speed: name a metric of the predictions")


def mistake(name: str, pattern: str, lines: Sequence[str]) -> str | None:
    """Return what is wrong with a metric's regular expression, or None."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        return f"is not a regular expression ({error}): {pattern!r}"
    if compiled.groups != 1:
        return f"must have one group, around the number; got {compiled.groups} in {pattern!r}"
    if len(pattern) > MAX_EXPRESSION:
        return f"has {len(pattern)} characters: SageMaker accepts {MAX_EXPRESSION}"
    matches = [match for line in lines if (match := compiled.search(line))]
    if not matches:
        example = next(line for line in lines if "val_loss=" in line)
        return f"matches no line of a training log, such as {example!r}"
    return _mistake_in_matches(name, matches)


def _mistake_in_matches(name: str, matches: Sequence[re.Match[str]]) -> str | None:
    for match in matches:
        if not _is_number(match[1]):
            return f"must match a number, got {match[1]!r} in {match.string!r}"
    # The word before a number is the metric's name.
    found = {_word_before(match) for match in matches}
    if len(found) > 1:
        return f"matches several metrics, {', '.join(sorted(found))}: begin it with \\b{name}="
    if name in METRIC_NAMES and found != {name}:
        return f"matches {found.pop()}, not {name}: begin it with \\b{name}="
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def _word_before(match: re.Match[str]) -> str:
    words = re.findall(r"[\w.]+(?==)", match.string[: match.start(1)])
    return words[-1] if words else "?"
