"""The training program of the training image."""
