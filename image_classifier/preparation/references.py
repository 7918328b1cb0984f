"""The files that the rows of a manifest name: never a file of another folder."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import TypeAlias

from container.classifier.class_folders import listed
from container.classifier.split_names import normalized

# What the paths of rows have before those in the source, and what they lack.
Shift: TypeAlias = tuple[str, str]
NO_SHIFT: Shift = ("", "")

# Rows with a rare shift name files that do not exist. Relative to those without one, and to the
# mean number of rows with a shift.
MIN_OF_EXACT, MIN_OF_MEAN = 0.5, 0.1


class References:
    """Finds the files of a manifest's rows.

    A row names its file by its path in the source. There can be more before it, such as the address
    of a bucket, or a part can be missing, such as the folder or the suffix, if other rows do it in
    the same way and exactly one file has such a path.
    """

    def __init__(self, names: Sequence[str], references: Sequence[str], folder: str = "") -> None:
        """Index the files of a source; compare all references.

        Paths are relative to the source; or to `folder`, that of the manifest, if more of the
        references are.
        """
        self._folder = ""
        self._known: Mapping[str, str] = {normalized(name): name for name in names}
        if folder and folder != ".":
            paths = list(map(_path, references))
            inner = sum(f"{folder}/{path}" in self._known for path in paths)
            self._folder = (
                f"{folder}/" if inner > sum(path in self._known for path in paths) else ""
            )
        found = [item[1] for text in references if (item := self._locate(text))]
        counts = Counter(found)
        exact = counts.pop(NO_SHIFT, 0)
        most = max(counts.values(), default=0)
        mean = counts.total() / max(len(counts), 1)
        least = max(min(2, most), MIN_OF_EXACT * exact, MIN_OF_MEAN * mean)
        self._shifts = {NO_SHIFT, *(shift for shift, count in counts.items() if count >= least)}

    def find(self, reference: str) -> str | None:
        """Return the path of the file that a row names, or None without exactly one."""
        located = self._locate(reference)
        return located[0] if located and located[1] in self._shifts else None

    def why_not(self, reference: str) -> tuple[str, str]:
        """Return the kind of finding about a reference without a file, and its reason."""
        path = _path(reference)
        candidates = self._by_end.get(path, ())
        if len(candidates) > 1:
            what = f"{len(candidates)} files have this name: {listed(sorted(candidates))}"
            return "ambiguous-file", f"{what}; list the path of each in the source"
        if not candidates and (others := self._by_folded.get(path.casefold())):
            return (
                "other-case",
                f"the file is called {listed(sorted(others))}: use the same letters",
            )
        name = path.rpartition("/")[2]
        others = self._by_end.get(name, []) if name else []
        hint = f"; files of this name in other folders: {listed(sorted(others))}" if others else ""
        return "missing-file", f"the file does not exist{hint}"

    def _locate(self, reference: str) -> tuple[str, Shift] | None:
        """Return the only file that a reference can mean, and how the paths differ."""
        path = _path(reference)
        if self._folder and (name := self._known.get(self._folder + path)):
            return name, NO_SHIFT
        parts = path.split("/")
        for start in range(len(parts)):
            if name := self._known.get("/".join(parts[start:])):
                return name, ("/".join(parts[:start]), "")
        candidates = self._by_end.get(path, ())
        if len(candidates) != 1:
            return None
        (name,) = candidates
        missing = normalized(name).count("/") - path.count("/")
        return name, ("", "/".join(normalized(name).split("/")[:missing]))

    @cached_property
    def _by_end(self) -> Mapping[str, list[str]]:
        """The files by every end of their paths, with and without the suffix."""
        by_end: dict[str, list[str]] = defaultdict(list)
        for key, name in self._known.items():
            stem = str(PurePosixPath(key).with_suffix(""))
            for whole in {key, stem}:
                parts = whole.split("/")
                for start in range(len(parts)):
                    by_end["/".join(parts[start:])].append(name)
        return dict(by_end)

    @cached_property
    def _by_folded(self) -> Mapping[str, list[str]]:
        by_folded: dict[str, list[str]] = defaultdict(list)
        for end, names in self._by_end.items():
            by_folded[end.casefold()] += names
        return by_folded


def _path(reference: str) -> str:
    """Return a reference with slashes, without dots that mean nothing; empty without a name."""
    path = str(PurePosixPath(normalized(reference).replace("\\", "/")))
    return "" if path == "." else path
