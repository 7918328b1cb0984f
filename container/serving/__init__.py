"""The program of the serving container image: answers requests with a model's predictions.

`server/` has gunicorn's settings, admission control and the drain on SIGTERM; `http/` the routes,
the decoding of request bodies and the encoding of responses; `model/` the predictor, its engines
(OpenVINO on a CPU, PyTorch with batching on a GPU), the image pool and the registry of a
multi-model endpoint. `settings` reads the environment, `sizing` derives pool sizes from the
machine, and `loading` creates the application and loads the model.
"""
