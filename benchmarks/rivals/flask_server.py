"""Flask under gunicorn's sync workers, as in many examples.

ARTIFACT=FOLDER gunicorn --workers 2 benchmarks.rivals.flask_server:app
"""

from flask import Flask, Response, jsonify, request

from benchmarks.rivals.classifier import load

classify = load()
app = Flask(__name__)


@app.get("/ping")
def ping() -> Response:
    """Return 200 because the model is loaded."""
    return Response()


@app.post("/invocations")
def invocations() -> Response:
    """Predict an image."""
    return jsonify(classify(request.data))
