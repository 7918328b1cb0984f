"""The metrics that SageMaker reads from a job's log, proved on real lines before money is spent."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from container.training.evaluation.metrics import METRIC_DEFINITIONS, METRIC_NAMES
from image_classifier.settings.reading import Mistake
from image_classifier.settings.schema import Settings

# Lines that the training program printed, one of each kind.
LOG = Path(__file__).with_name("log_lines.txt")

# In the order in which the training program prints them.
PROGRAM_METRICS = METRIC_NAMES

# What the API takes; a tuning job takes half as many.
MAX_DEFINITIONS, MAX_EXPRESSION = 20, 500


def definitions(settings: Settings) -> list[dict[str, str]]:
    """Return the metric definitions of a job, as requests have them."""
    ours = {each["Name"]: each["Regex"] for each in METRIC_DEFINITIONS}
    merged = ours | dict(settings.metrics)
    return [{"Name": name, "Regex": expression} for name, expression in merged.items()]


def expression(settings: Settings, name: str) -> re.Pattern[str]:
    """Return the expression of a metric."""
    found = next(each["Regex"] for each in definitions(settings) if each["Name"] == name)
    return re.compile(found)


def mistakes(settings: Settings) -> Iterator[Mistake]:
    """Yield what is wrong with the metrics: what matches no line, or another metric's value."""
    lines = LOG.read_text(encoding="utf-8").splitlines()
    for name, pattern in settings.metrics.items():
        sentence = judge(name, pattern, lines)
        if sentence is not None:
            yield Mistake(("metrics", name), sentence)
    if len(definitions(settings)) > MAX_DEFINITIONS:
        yield Mistake(("metrics",), f"are more than {MAX_DEFINITIONS}, with the program's own")
    known = [each["Name"] for each in definitions(settings)]
    wanted = known[0] if settings.tuning is None else settings.tuning.objective
    if wanted not in known:
        yield Mistake(("tuning", "objective"), f"{wanted!r} is no metric: {', '.join(known)}")
    if wanted == "images_per_second":
        yield Mistake(("tuning", "objective"), "is a speed: name what the network should learn")


def judge(name: str, pattern: str, lines: Sequence[str]) -> str | None:
    """Return what is wrong with a metric's expression, or None."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        return f"is no regular expression ({error}): {pattern!r}"
    if compiled.groups != 1:
        return f"must have one group, around the number; {pattern!r} has {compiled.groups}"
    if len(pattern) > MAX_EXPRESSION:
        return f"has {len(pattern)} characters: SageMaker takes {MAX_EXPRESSION}"
    return _judge_matches(
        name, [match for line in lines if (match := compiled.search(line))], lines
    )


def _judge_matches(name: str, matches: Sequence[re.Match[str]], lines: Sequence[str]) -> str | None:
    if not matches:
        example = next(line for line in lines if "val_loss=" in line)
        return f"matches no line of a training's log, such as {example!r}"
    for match in matches:
        if not _is_number(match[1]):
            return f"finds {match[1]!r}, no number, in {match.string!r}"
    # The words before the numbers say which metric each is.
    found = {_word_before(match) for match in matches}
    if len(found) > 1:
        return f"matches several things, {', '.join(sorted(found))}: begin it with \\b{name}="
    if name in METRIC_NAMES and found != {name}:
        return f"reads {found.pop()}, not {name}: begin it with \\b{name}="
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
