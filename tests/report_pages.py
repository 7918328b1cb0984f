"""What all reports have in common: one file that loads nothing, and is accessible."""

import re
from html.parser import HTMLParser
from itertools import pairwise

from container.classifier.report_page import read_stylesheet

VOID = {"meta", "img", "br"}

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_report(text: str) -> Page:
    """Check a report's frame, headings, images and tables; return its elements."""
    page = Page(text)
    assert page.open == []
    assert read_stylesheet() in text
    _check_nothing_is_loaded(page)
    _check_headings(page)
    for name, attributes in page.elements:
        if name == "img":
            assert attributes["alt"]
        if name == "svg":
            assert attributes["aria-label"]
        if name == "th":
            assert attributes.get("scope") in {"row", "col"}
    named = [attributes.get("id") for _, attributes in page.elements if "id" in attributes]
    assert len(named) == len(set(named))
    assert re.search(r"Date\s*20\d\d-\d\d-\d\d \d\d:\d\d UTC", page.text)
    return page


def _check_nothing_is_loaded(page: Page) -> None:
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object", "form", "base"}
    policies = [
        attributes["content"]
        for name, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == [POLICY]
    for _, attributes in page.elements:
        source = attributes.get("src", "data:image/png;base64,")
        assert source
        assert re.match(r"data:image/(png|jpeg);base64,", source)
    assert not re.search(r"@import|url\(", read_stylesheet())


def _check_headings(page: Page) -> None:
    """Check that no level is skipped, and that the contents lead to all sections in order."""
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h\d", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    links = [attributes["href"] for name, attributes in page.elements if name == "a"]
    sections = [attributes["id"] for name, attributes in page.elements if name == "section"]
    assert links == [f"#{section}" for section in sections]
    assert len(sections) == levels.count(2)
