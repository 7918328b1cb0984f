"""Which of N things belong together, told pair by pair (Galler and Fischer 1964)."""

import numpy as np
import numpy.typing as npt


class DisjointSets:
    """At first everything is by itself."""

    def __init__(self, count: int) -> None:
        """Begin with N things, which are numbers from 0."""
        self._parents = list(range(count))

    def join(self, one: int, other: int) -> None:
        """Put two things, and what belongs to either, together."""
        first, second = self._root(one), self._root(other)
        self._parents[max(first, second)] = min(first, second)

    def roots(self) -> npt.NDArray[np.int64]:
        """Return (N,): the least number of what each thing belongs to."""
        return np.array([self._root(place) for place in range(len(self._parents))], dtype=np.int64)

    def _root(self, place: int) -> int:
        parents = self._parents
        while parents[place] != place:
            # Every second one is left out on the way: paths stay short.
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place
