"""The HTTP API: routes, request bodies, responses, errors, metrics and the request log."""
