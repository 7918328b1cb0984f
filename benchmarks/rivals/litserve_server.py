"""LitServe with two workers.

ARTIFACT=FOLDER python -m benchmarks.rivals.litserve_server PORT
"""

import sys
from typing import Annotated, Any

import litserve
from fastapi import Depends, Request

from benchmarks.rivals.classifier import load


async def body(request: Request) -> bytes:
    """Return the request body; by default LitServe reads only JSON and forms."""
    return await request.body()


class Api(litserve.LitAPI):  # type: ignore[misc]
    """The steps of a LitServe request."""

    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe's signature
        """Load the model."""
        self.classify = load()

    def decode_request(self, request: Annotated[bytes, Depends(body)]) -> bytes:
        """Return the bytes unchanged."""
        return request

    def predict(self, x: bytes) -> dict[str, float]:
        """Predict an image."""
        return self.classify(x)

    def encode_response(self, output: Any) -> Any:  # noqa: ANN401
        """Return the output unchanged."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(api_path="/invocations"),
        accelerator="cpu",
        workers_per_device=2,
        healthcheck_path="/ping",
    )
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
