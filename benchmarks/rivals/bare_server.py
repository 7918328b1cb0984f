"""The least that a Flask view does under gunicorn: read an image, predict with our engine, respond.

ARTIFACT=FOLDER PRECISION=int8 gunicorn --threads 8 benchmarks.rivals.bare_server:app

Without checks of the request, a queue, a log, metrics or limits, it is no server for users. It
measures what Flask and gunicorn cost.
"""

import math
import os
import threading
from pathlib import Path

from flask import Flask, Response, jsonify, request

from container.classifier.machine import usable_cpus
from container.classifier.preprocessing import preprocess
from container.serving.model.predictor import Predictor

streams = math.ceil(usable_cpus())
predictor = Predictor.load(
    Path(os.environ["ARTIFACT"]), streams=streams, precision=os.environ["PRECISION"]
)
# As in our server, one image more waits in the engine, and one more is decoded.
slots = threading.Semaphore(streams + 2)
app = Flask(__name__)


@app.get("/ping")
def ping() -> Response:
    """Return 200 because the model is loaded."""
    return Response()


@app.post("/invocations")
def invocations() -> Response:
    """Predict an image."""
    data = request.data
    with slots:
        image = preprocess(data, predictor.preprocessing)
        probabilities = predictor.predict(image, is_idle=False)
    return jsonify(dict(zip(predictor.class_names, probabilities.tolist(), strict=True)))
