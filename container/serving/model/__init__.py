"""Loaded models: engines, batching, precision, the image pool and the model registry."""
