"""SageMaker's side of a multi-model endpoint on this machine.

A request names a target model, a file below a folder that stands for the prefix on S3. The model is
unpacked and loaded with the first request for it, also if the file appears while the endpoint runs.
If the server has no memory for it (507), the least recently used models are unloaded.
"""

import hashlib
import json
import shutil
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

from container.classifier.environment import MULTI_MODEL_VARIABLE
from container.classifier.errors import UserError
from container.classifier.media_types import TARGET_MODEL
from image_classifier.platform.archives import extract
from image_classifier.platform.sandbox.http_call import Response, call
from image_classifier.platform.sandbox.launch import Launch, Running

# SageMaker's time limits of a load and of an invocation.
_LOAD_SECONDS, _INVOCATION_SECONDS = 360, 60

# Limit of request and response bodies; the server's default for requests.
MAX_BYTES = 25 * 2**20

# How often a model is loaded again that was evicted before its request was processed.
_ATTEMPTS = 10

# Models that are named in a message.
_SHOWN = 5

# Folder of the unpacked models.
MODELS = "models"


def check_name(target_model: str) -> None:
    """Check that a request can have this name of a model in a header.

    Raises:
        UserError: it cannot.
    """
    if not (target_model.isascii() and target_model.isprintable()):
        raise UserError(
            f"the model {target_model!r} has characters that are not printable ASCII: "
            "rename its file"
        )


def launch_of(launch: Launch) -> Launch:
    """Return the launch of a multi-model server: read-only models, and SageMaker's variable."""
    (launch.base_dir / MODELS).mkdir(exist_ok=True)
    variables = {MULTI_MODEL_VARIABLE: "true", **launch.variables}
    folders = {**launch.folders, MODELS: False}
    return replace(launch, folders=folders, variables=variables)


def names_in(folder: Path) -> list[str]:
    """Return the names of a folder's models, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tar.gz"))


class MultiModelEndpoint:
    """Loads and unloads the models of a server. Thread-safe."""

    def __init__(
        self, server: Running, base_dir: Path, source: Path, *, in_container: bool
    ) -> None:
        """Manage the models of a server that has none.

        Args:
            server: is ready.
            base_dir: of its launch.
            source: folder of the target models, such as `NAME.tar.gz` or `FOLDER/NAME.tar.gz`.
            in_container: whether the server sees `base_dir` as /opt/ml.
        """
        self._server = server
        self._folder, self._source = base_dir.resolve() / MODELS, source.resolve()
        self._root = "/opt/ml/models" if in_container else str(self._folder)
        self._changed = threading.Condition()
        # A model's lock is held while it is loaded or unloaded.
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        # The number of each model's load; the models by the time of the last request.
        self._loaded: OrderedDict[str, int] = OrderedDict()
        # Loads that do not wait for memory.
        self._loading = 0
        self.loads = self.unloads = 0

    def invoke(
        self, target_model: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a request to a model, which is loaded first if necessary.

        Returns:
            The response of the model, or that of the server that could not load it.

        Raises:
            UserError: there is no such model, its name is not ASCII, or the file is not a model.
        """
        check_name(target_model)
        name = hashlib.sha256(target_model.encode()).hexdigest()[:32]
        headers = {TARGET_MODEL: target_model, **(headers or {})}
        path = f"/models/{name}/invoke"
        for _ in range(_ATTEMPTS):
            if (problem := self._ensure_loaded(target_model, name)) is not None:
                return problem
            load = self._loaded.get(name)
            response = self._send("POST", path, _INVOCATION_SECONDS, body, headers)
            if response.status != HTTPStatus.NOT_FOUND:
                return response
            # It was evicted after it had been found loaded, or the server has lost it.
            with self._changed:
                if load is not None and self._loaded.get(name) == load:
                    del self._loaded[name]
        return response

    def unload_all(self) -> None:
        """Unload all models."""
        while self._evict():
            pass

    def _ensure_loaded(self, target_model: str, name: str) -> Response | None:
        """Load a model unless it is loaded; return the response of a server that cannot."""
        with self._locks[name]:
            with self._changed:
                if name in self._loaded:
                    self._loaded.move_to_end(name)
                    return None
            self._unpack(target_model, name)
            with self._changed:
                self._loading += 1
            response = self._load(name)
            is_loaded = response.is_success or response.status == HTTPStatus.CONFLICT
            if not is_loaded:
                self._remove(name)
            with self._changed:
                self._loading -= 1
                if is_loaded:
                    self.loads += 1
                    self._loaded[name] = self.loads
                self._changed.notify_all()
            return None if is_loaded else response

    def _load(self, name: str) -> Response:
        document = {"model_name": name, "url": f"{self._root}/{name}/model"}
        body = json.dumps(document).encode()
        headers = {"Content-Type": "application/json"}
        while True:
            response = self._send("POST", "/models", _LOAD_SECONDS, body, headers)
            if response.status != HTTPStatus.INSUFFICIENT_STORAGE or not self._make_room():
                return response

    def _make_room(self) -> bool:
        """Unload a model; return whether there may be more memory now."""
        while not self._evict():
            with self._changed:
                self._loading -= 1
                # Those that are being loaded can be unloaded then.
                has_waited = self._loading > 0
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._loaded or not self._loading)
                self._loading += 1
                if not self._loaded:
                    return has_waited
        return True

    def _evict(self) -> bool:
        """Unload the least recently used model; return whether there was one."""
        while True:
            with self._changed:
                if not self._loaded:
                    return False
                name = next(iter(self._loaded))
            # The lock of a loaded model is held for a moment only.
            with self._locks[name]:
                with self._changed:
                    # Another request may have evicted it meanwhile.
                    if self._loaded.pop(name, None) is None:
                        continue
                    self.unloads += 1
                self._send("DELETE", f"/models/{name}", _LOAD_SECONDS)
                self._remove(name)
                return True

    def _unpack(self, target_model: str, name: str) -> None:
        """Unpack a model, as SageMaker does after the download from S3.

        Raises:
            UserError: there is no such model, or the file is not a model.
        """
        packed = (self._source / target_model).resolve()
        try:
            is_missing = self._source not in packed.parents or not packed.is_file()
        except OSError:
            # Its name is too long for a file.
            is_missing = True
        if is_missing:
            names = names_in(self._source)
            known = ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])
            raise UserError(
                f"no model {target_model!r} in {self._source}, which has {known or 'no model'}"
            )
        folder = self._folder / name
        partial = self._folder / f"{name}.partial"
        self._remove(name)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            extract(packed, partial / "model")
        except UserError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(folder)

    def _remove(self, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def _send(
        self,
        method: str,
        path: str,
        seconds: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        return call(
            self._server.address,
            method,
            path,
            timeout=seconds,
            body=body,
            headers=headers,
            max_bytes=MAX_BYTES,
        )
