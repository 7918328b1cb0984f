"""What the doctor found: passed, failed and skipped cases, as text, JSON and JUnit."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from image_classifier.platform import load
from image_classifier.platform.doctor.cases import CASES, PAGE
from image_classifier.platform.load import Capacity

_MAX_EVIDENCE = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A case that failed."""

    message: str
    """What is wrong, in one sentence."""

    evidence: str
    """A line of the log, a status or a time."""

    remedy: str

    page: str
    """Documentation of the case."""


class Report:
    """Results by case; each case has the first result that it gets."""

    def __init__(self, case_ids: Iterable[str], ignored: Iterable[str] = ()) -> None:
        """Create a report on these cases; ignored ones are skipped."""
        self.passed: list[str] = []
        self.failed: dict[str, Failure] = {}
        self.skipped: dict[str, str] = {}
        self.loads: dict[str, Capacity | str] = {}
        """Results of load tests by setting, or why one was not measured; the default is empty."""
        self._open = list(dict.fromkeys(case_ids))
        for case_id in ignored:
            self.skip(case_id, "ignored by --skip")

    def is_open(self, case_id: str) -> bool:
        """Return whether a case has no result yet."""
        return case_id in self._open

    def accept(self, *case_ids: str) -> None:
        """Record that cases passed, unless they have another result."""
        for case_id in case_ids:
            if self._decide(case_id):
                self.passed.append(case_id)

    def fail(self, case_id: str, message: str, evidence: object, remedy: str = "") -> None:
        """Record that a case failed; the default of `remedy` is the case's own."""
        if self._decide(case_id):
            self.failed[case_id] = Failure(
                message=message,
                evidence=str(evidence)[:_MAX_EVIDENCE],
                remedy=remedy or CASES[case_id].remedy,
                page=f"{PAGE}#{case_id}",
            )

    def skip(self, case_id: str, reason: str) -> None:
        """Record that a case could not be checked."""
        if self._decide(case_id):
            self.skipped[case_id] = reason

    def skip_rest(self, reason: str) -> None:
        """Skip all cases without a result."""
        for case_id in list(self._open):
            self.skip(case_id, reason)

    def text(self) -> str:
        """Return the report for people: failures with evidence and remedy first."""
        return "\n".join(self._lines())

    def json(self) -> str:
        """Return the report as one JSON object."""
        failed = [{"id": case_id, **asdict(failure)} for case_id, failure in self.failed.items()]
        skipped = [{"id": key, "message": reason} for key, reason in self.skipped.items()]
        document: dict[str, object] = {
            "passed": self.passed,
            "failed": failed,
            "skipped": skipped,
        }
        if self.loads:
            document["load"] = load.document(self.loads)
        return json.dumps(document, indent=2)

    def junit(self, suite: str) -> str:
        """Return the report as JUnit's XML, which CI systems show."""
        counts = {"failures": len(self.failed), "skipped": len(self.skipped)}
        total = len(self.passed) + sum(counts.values())
        numbers: Mapping[str, int] = {"tests": total, "errors": 0, **counts}
        root = Element("testsuite", {key: str(value) for key, value in numbers.items()}, name=suite)
        for case_id in self.passed:
            _test_case(root, case_id)
        for case_id, failure in self.failed.items():
            element = SubElement(_test_case(root, case_id), "failure", message=failure.message)
            element.text = _printable(
                f"evidence: {failure.evidence}\nremedy: {failure.remedy}\nsee {failure.page}"
            )
        for case_id, reason in self.skipped.items():
            SubElement(_test_case(root, case_id), "skipped", message=_printable(reason))
        return tostring(root, encoding="unicode", xml_declaration=True)

    def _lines(self) -> Iterator[str]:
        for case_id, failure in self.failed.items():
            yield f"FAILED   {case_id}: {failure.message}"
            yield f"         evidence: {failure.evidence}"
            yield f"         remedy: {failure.remedy}"
            yield f"         see {failure.page}"
        for case_id, reason in self.skipped.items():
            yield f"skipped  {case_id}: {reason}"
        for case_id in self.passed:
            yield f"passed   {case_id}: {CASES[case_id].checks}"
        yield from load.lines(self.loads)
        yield (f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped")

    def _decide(self, case_id: str) -> bool:
        if case_id not in self._open:
            return False
        self._open.remove(case_id)
        return True


def _test_case(root: Element, case_id: str) -> Element:
    return SubElement(root, "testcase", classname="doctor", name=case_id)


def _printable(text: str) -> str:
    """Remove characters that XML cannot contain."""
    return "".join(each for each in text if each.isprintable() or each in "\n\t")
