"""SageMaker's requests for the models of a multi-model container."""

import json
from collections.abc import Mapping
from urllib.parse import quote

from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.payload import Payload, parse
from image_classifier.platform.sandbox.http_call import Response, call
from image_classifier.platform.sandbox.launch import Launch, Running

# SageMaker's names of models are hashes.
FIRST, SECOND, UNKNOWN = (f"{number:032x}" for number in (0xA1, 0xB2, 0xC3))

_MAX_PAGES = 100


class ModelClient:
    """Sends SageMaker's requests for models."""

    def __init__(self, examination: Examination, running: Running, launch: Launch) -> None:
        """Send them to a running server, whose models are in a folder of `launch`."""
        self.examination, self.running = examination, running
        is_container = examination.target.is_container
        self._root = "/opt/ml/models" if is_container else f"{launch.base_dir}/models"

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request."""
        timeout = self.examination.limits.invocation
        return call(self.running.address, method, path, timeout=timeout, body=body, headers=headers)

    def load(self, name: str) -> Response:
        """Load a model."""
        url = f"{self._root}/{name}/model"
        body = json.dumps({"model_name": name, "url": url}).encode()
        return self.send("POST", "/models", body, {"Content-Type": "application/json"})

    def unload(self, name: str) -> Response:
        """Unload a model."""
        return self.send("DELETE", f"/models/{name}")

    def invoke(self, name: str, payload: Payload) -> Response:
        """Predict with a model."""
        headers = {"Content-Type": payload.content_type, "Accept": payload.accept}
        return self.send("POST", f"/models/{name}/invoke", payload.body, headers)

    def names(self) -> set[str] | None:
        """Return the names on all pages of the list of models; None: it is no such list."""
        names, path = set[str](), "/models"
        for _ in range(_MAX_PAGES):
            document = parse(self.send("GET", path).body)
            models = document.get("models") if isinstance(document, dict) else None
            if not isinstance(document, dict) or not isinstance(models, list):
                return None
            names |= {str(each.get("modelName")) for each in models if isinstance(each, Mapping)}
            if not (token := document.get("nextPageToken")):
                break
            path = f"/models?next_page_token={quote(str(token))}"
        return names

    def model_bytes(self) -> int:
        """Return the size of the model's files."""
        folder = self.examination.folder / "models" / FIRST
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
