"""What people write: Flask, gunicorn's sync workers, torch as it comes, one thread a worker.

    ARTIFACT=FOLDER gunicorn --workers 2 benchmarks.naive_server:app

It answers with the weights of an artifact of ours, as in the samples of the field: the picture is
opened, resized, cropped, normalised, and the network is called.
"""

import io
import os
from pathlib import Path

import safetensors.torch
import torch
from flask import Flask, Response, jsonify, request
from PIL import Image
from torchvision import transforms

from classifier.artifact import WEIGHTS, Artifact
from training.network import build

torch.set_num_threads(1)

_artifact = Artifact.read(Path(os.environ["ARTIFACT"]))
_names = _artifact.manifest.class_names
_network = build(_artifact.manifest.network, len(_names)).module
_network.load_state_dict(safetensors.torch.load_file(_artifact.onnx_model.parent / WEIGHTS))
_network.eval()
_size = _artifact.manifest.preprocessing.image_size
_transform = transforms.Compose(
    [
        transforms.Resize(round(_size / 0.875)),
        transforms.CenterCrop(_size),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)

app = Flask(__name__)


@app.get("/ping")
def ping() -> Response:
    """Say that the model is loaded."""
    return Response()


@app.post("/invocations")
def invocations() -> Response:
    """Predict a picture."""
    image = Image.open(io.BytesIO(request.data)).convert("RGB")
    with torch.inference_mode():
        probabilities = torch.softmax(_network(_transform(image)[None]), dim=1)[0]
    return jsonify(dict(zip(_names, probabilities.tolist(), strict=True)))
