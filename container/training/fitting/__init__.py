"""The training loop and its parts: step, optimizer, checkpoint, distributed ranks."""
