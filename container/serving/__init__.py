"""The program of the serving container image: answers requests with a model's predictions.

`gunicorn_conf` runs processes of `worker`, which lets requests in; `app` answers them over HTTP.
Their images go through `decoding` -> `pool` (`predictor`, `engine`) -> `encoding`, which know
bytes and arrays but not Flask. On a multi-model endpoint `multi_model` answers in the place of
`app`, and `registry` keeps what the platform loads and unloads. `sizing` says how many of
everything, `loading` makes it ready. On a GPU (`gpu`) `torch_engine` takes `engine`'s place and has
`batching` collect what it predicts.
"""
