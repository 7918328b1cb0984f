"""The networks in PyTorch, for training and for serving on a GPU."""
