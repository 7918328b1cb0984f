"""[endpoint.capture]: what an endpoint keeps of its requests and answers."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """Kept on S3, below the output of the settings."""

    percent: int = 100
    """Of the requests."""
    requests: bool = True
    answers: bool = True

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong here."""
        if not 0 < self.percent <= 100:  # noqa: PLR2004 - a share
            yield "percent", f"must be 1 to 100, got {self.percent}"
        if not (self.requests or self.answers):
            yield "answers", "and requests are both false: drop the section to capture nothing"
