"""The models of a multi-model endpoint: loaded, borrowed by requests, freed when unused."""

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from werkzeug.exceptions import (
    BadRequest,
    Conflict,
    HTTPException,
    InternalServerError,
    NotFound,
)

from container.classifier.errors import UserError
from container.serving.model.errors import InsufficientStorage
from container.serving.model.memory import release_memory
from container.serving.model.predictor import Predictor
from container.serving.settings import MIB

logger = logging.getLogger(__name__)

# For those who answered last to let go of a model, which takes milliseconds.
FREEING_SECONDS = 10.0


@dataclass(kw_only=True, slots=True, eq=False)
class _Entry:
    """A model from the moment its memory is reserved until it is free again."""

    url: str

    reserved: int
    """Bytes."""

    predictor: Predictor | None = None
    """What requests are answered with; none while it is loaded and while it is unloaded."""

    users: int = 0
    """Requests that have it."""

    is_leaving: bool = False


class Registry:
    """Models by name; any number of threads may call everything at the same time.

    Names are opaque: no path is made of them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        budget: int,
        needed: Callable[[Path], int],
        load: Callable[[Path], Predictor],
    ) -> None:
        """Begin with no model.

        Args:
            folder: nothing outside of it is loaded.
            budget: bytes of memory that all models may take.
            needed: bytes of memory that the model in an artifact's folder takes.
            load: makes a predictor of an artifact's folder.
        """
        self._folder = folder.resolve()
        self._budget = budget
        self._needed = needed
        self._load = load
        self._entries: dict[str, _Entry] = {}
        self._changed = threading.Condition()

    def load(self, name: str, url: str) -> None:
        """Load the artifact in the folder `url`; return when requests can be answered.

        Raises:
            BadRequest: it does not exist, or is outside of the models' folder.
            Conflict: a model of this name is loaded, or being loaded.
            InsufficientStorage: it does not fit into memory with the others.
            InternalServerError: the artifact is broken.
        """
        directory = self._inside(url)
        try:
            size = self._needed(directory)
        except (UserError, OSError) as error:
            raise InternalServerError(str(error)) from error
        entry = self._reserve(name, url, size)
        start = time.monotonic()
        problem: HTTPException
        try:
            predictor = self._load(directory)
        except (UserError, OSError) as error:
            problem = InternalServerError(str(error))
        except MemoryError:
            problem = InsufficientStorage("the memory did not suffice to load the model")
        except Exception:
            logger.exception("the model %r was not loaded", name)
            problem = InternalServerError()
        else:
            with self._changed:
                entry.predictor = predictor
            logger.info("the model %r is loaded, seconds=%.1f", name, time.monotonic() - start)
            return
        # The error's traceback is gone, which held what was loaded so far.
        self._release(name)
        raise problem

    def unload(self, name: str) -> str:
        """Unload a model; return its url when no request uses it and its memory is free.

        Requests that arrive meanwhile get 404.

        Raises:
            NotFound: it is not loaded.
        """
        with self._changed:
            entry, predictor = self._loaded(name)
            entry.predictor, entry.is_leaving = None, True
            self._changed.wait_for(lambda: entry.users == 0)
        try:
            predictor.close()
            last = weakref.ref(predictor)
            del predictor
            _wait_until_gone(last)
        finally:
            self._release(name)
        logger.info("the model %r is unloaded", name)
        return entry.url

    @contextmanager
    def borrow(self, name: str) -> Iterator[Predictor]:
        """Lend a model, which is not freed meanwhile.

        Raises:
            NotFound: it is not loaded.
        """
        with self._changed:
            entry, predictor = self._loaded(name)
            entry.users += 1
        try:
            yield predictor
        finally:
            with self._changed:
                entry.users -= 1
                self._changed.notify_all()

    def url(self, name: str) -> str:
        """Return where a model was loaded from.

        Raises:
            NotFound: it is not loaded.
        """
        with self._changed:
            return self._loaded(name)[0].url

    def names_and_urls(self) -> Sequence[tuple[str, str]]:
        """Return all loaded models, sorted by name."""
        with self._changed:
            loaded = [(name, each.url) for name, each in self._entries.items() if each.predictor]
        return sorted(loaded)

    def _loaded(self, name: str) -> tuple[_Entry, Predictor]:
        entry = self._entries.get(name)
        if entry is None or entry.predictor is None:
            raise NotFound("no model of this name is loaded")
        return entry, entry.predictor

    def _inside(self, url: str) -> Path:
        try:
            directory = Path(url).resolve()
            is_file = directory.is_file()
        except (OSError, RuntimeError, ValueError):
            # No path at all, or links that lead nowhere.
            directory, is_file = Path(), False
        if not directory.is_relative_to(self._folder):
            raise BadRequest(f"the url must be a folder inside of {self._folder}")
        if is_file:
            raise BadRequest("the url is no folder's")
        return directory

    def _reserve(self, name: str, url: str, size: int) -> _Entry:
        """Take the name and the memory, at once: others load at the same time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_leaving(name))
            if name in self._entries:
                raise Conflict("a model of this name is loaded, or being loaded")
            free = self._budget - sum(each.reserved for each in self._entries.values())
            if size > free:
                raise InsufficientStorage(
                    f"the model takes about {size // MIB} MB, and of {self._budget // MIB} MB "
                    f"for models {free // MIB} are free: unload others"
                )
            entry = _Entry(url=url, reserved=size)
            self._entries[name] = entry
            return entry

    def _is_leaving(self, name: str) -> bool:
        return name in self._entries and self._entries[name].is_leaving

    def _release(self, name: str) -> None:
        """Give memory back to the system, then the name and the room to others."""
        release_memory()
        with self._changed:
            del self._entries[name]
            self._changed.notify_all()


def _wait_until_gone(last: weakref.ref[Predictor]) -> None:
    """Wait for the threads that answered last, and break the cycles of errors that they raised."""
    deadline = time.monotonic() + FREEING_SECONDS
    gc.collect()
    while last() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
        gc.collect()
