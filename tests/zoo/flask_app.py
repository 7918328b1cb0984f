"""A healthy server with Flask, for gunicorn."""

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

app = Flask(__name__)


@app.get("/ping")
def ping() -> Response:
    return Response(status=200)


@app.post("/invocations")
def invoke() -> Response:
    return jsonify(mean=sum(request.get_json()["instances"][0]) / 4)


@app.errorhandler(HTTPException)
def reject(error: HTTPException) -> tuple[Response, int]:
    return jsonify(error=str(error)), error.code or 500


@app.errorhandler(KeyError)
def reject_keys(error: KeyError) -> tuple[Response, int]:
    return jsonify(error=f"missing {error}"), 400
