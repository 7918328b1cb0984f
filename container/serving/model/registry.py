"""Registry of a multi-model endpoint: loads models, lends them to requests, unloads them."""

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

# Limit for the last requests' threads to release a model, which takes milliseconds.
RELEASE_SECONDS = 10.0


@dataclass(kw_only=True, slots=True, eq=False)
class _Entry:
    """A model, from the reservation of its memory until the memory is free again."""

    url: str

    reserved_bytes: int

    predictor: Predictor | None = None
    """None while the model is being loaded or unloaded."""

    users: int = 0
    """Requests that have borrowed the model."""


class Registry:
    """Models by name. Thread-safe. Names are opaque and never become part of a path."""

    def __init__(
        self,
        folder: Path,
        *,
        budget: int,
        needed: Callable[[Path], int],
        load: Callable[[Path], Predictor],
    ) -> None:
        """Create a registry without models.

        Args:
            folder: Only artifacts in this folder are loaded.
            budget: Bytes of memory that all models together may take.
            needed: Returns the bytes of memory that an artifact's model takes.
            load: Returns the predictor of an artifact.
        """
        self._folder = folder.resolve()
        self._budget = budget
        self._needed = needed
        self._load = load
        self._entries: dict[str, _Entry] = {}
        self._unloading: set[str] = set()
        self._changed = threading.Condition()

    def load(self, name: str, url: str) -> None:
        """Load the artifact in the folder `url`; return when the model can predict.

        Raises:
            BadRequest: The URL is not a folder in the registry's folder.
            Conflict: A model of this name is loaded or being loaded.
            InsufficientStorage: The model does not fit into memory.
            InternalServerError: The artifact is damaged or missing.
        """
        directory = self._directory(url)
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
            problem = InsufficientStorage("not enough memory to load the model")
        except Exception:
            logger.exception("loading the model %r failed", name)
            problem = InternalServerError()
        else:
            with self._changed:
                entry.predictor = predictor
            logger.info("the model %r is loaded, seconds=%.1f", name, time.monotonic() - start)
            return
        # Outside the except blocks: a traceback would keep partially loaded objects in memory.
        self._release(name)
        raise problem

    def unload(self, name: str) -> str:
        """Unload a model; return its URL when no request uses it and its memory is free.

        New requests get 404 meanwhile.

        Raises:
            NotFound: No model of this name is loaded.
        """
        with self._changed:
            entry, predictor = self._loaded(name)
            entry.predictor = None
            self._unloading.add(name)
            self._changed.wait_for(lambda: entry.users == 0)
        try:
            predictor.close()
            reference = weakref.ref(predictor)
            del predictor
            _wait_until_freed(reference)
        finally:
            self._release(name)
        logger.info("the model %r is unloaded", name)
        return entry.url

    @contextmanager
    def borrow(self, name: str) -> Iterator[Predictor]:
        """Lend a model; it is not unloaded before the end of the block.

        Raises:
            NotFound: No model of this name is loaded.
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
        """Return the URL that a model was loaded from.

        Raises:
            NotFound: No model of this name is loaded.
        """
        with self._changed:
            return self._loaded(name)[0].url

    def names_and_urls(self) -> Sequence[tuple[str, str]]:
        """Return all loaded models, sorted by name."""
        with self._changed:
            return sorted(
                (name, each.url) for name, each in self._entries.items() if each.predictor
            )

    def _loaded(self, name: str) -> tuple[_Entry, Predictor]:
        entry = self._entries.get(name)
        if entry is None or entry.predictor is None:
            raise NotFound("no model of this name is loaded")
        return entry, entry.predictor

    def _directory(self, url: str) -> Path:
        try:
            directory = Path(url).resolve()
            is_file = directory.is_file()
        except (OSError, RuntimeError, ValueError):
            # An invalid path, or a loop of links.
            directory, is_file = Path(), False
        if not directory.is_relative_to(self._folder):
            raise BadRequest(f"the url must be a folder in {self._folder}")
        if is_file:
            raise BadRequest("the url is not a folder")
        return directory

    def _reserve(self, name: str, url: str, size: int) -> _Entry:
        """Reserve the name and the memory in one step: other threads load at the same time."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._unloading)
            if name in self._entries:
                raise Conflict("a model of this name is loaded or being loaded")
            free = self._budget - sum(each.reserved_bytes for each in self._entries.values())
            if size > free:
                raise InsufficientStorage(
                    f"the model takes about {size // MIB} MB, but only {free // MIB} of "
                    f"{self._budget // MIB} MB for models are free: unload other models"
                )
            entry = _Entry(url=url, reserved_bytes=size)
            self._entries[name] = entry
            return entry

    def _release(self, name: str) -> None:
        """Return freed memory to the system, then end the reservation of name and memory."""
        release_memory()
        with self._changed:
            del self._entries[name]
            self._unloading.discard(name)
            self._changed.notify_all()


def _wait_until_freed(reference: weakref.ref[Predictor]) -> None:
    """Wait for threads that still hold the predictor; collect reference cycles of their errors."""
    deadline = time.monotonic() + RELEASE_SECONDS
    gc.collect()
    while reference() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
        gc.collect()
