"""The networks as PyTorch has them: for training, and for serving on a GPU.

Knows nothing of files, HTTP or SageMaker.
"""
