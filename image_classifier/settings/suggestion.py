"""The end of a message about an unknown name: what it may have meant, or what is known."""

import difflib
from collections.abc import Collection

# More names are not listed in a message.
MAX_LISTED = 50


def find_near(name: str, names: Collection[str], similarity: float = 0.6) -> str | None:
    """Return the most similar of the names, whatever its case; None if none is similar."""
    by_lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), by_lower, 1, similarity)
    return by_lower[near[0]] if near else None


def suggestion(name: str, names: Collection[str]) -> str:
    """Return the end of a message about an unknown name."""
    # Also by its initials, such as lr.
    initials = {"".join(word[0] for word in known.split("_") if word): known for known in names}
    near = find_near(name, names) or initials.get(name.lower())
    if near is not None:
        return f"; did you mean {near}?"
    if len(names) > MAX_LISTED:
        return f"; docs/reference/settings.md lists the {len(names)} known names"
    return f"; known are {', '.join(names)}"
