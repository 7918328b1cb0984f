"""The serving image's program: answers SageMaker's requests with an artifact's predictions.

A request goes through `decoding` -> `predictor` (`engine`) -> `encoding`, which know bytes and
arrays but not Flask; `app` puts them behind HTTP, `loading` makes them ready, `gunicorn_conf` runs
the process.
"""
