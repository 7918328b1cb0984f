"""The training program of the training container image."""
