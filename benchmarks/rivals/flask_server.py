"""Flask under gunicorn's sync workers, as in the samples of the field.

ARTIFACT=FOLDER gunicorn --workers 2 benchmarks.rivals.flask_server:app
"""

from flask import Flask, Response, jsonify, request

from benchmarks.rivals.classifier import load

classify = load()
app = Flask(__name__)


@app.get("/ping")
def ping() -> Response:
    """Say that the model is loaded."""
    return Response()


@app.post("/invocations")
def invocations() -> Response:
    """Predict an image."""
    return jsonify(classify(request.data))
