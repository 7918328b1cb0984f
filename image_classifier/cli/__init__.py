"""The command `image-classifier`: verbs, help, exit codes, next steps."""

from image_classifier.cli.program import main

__all__ = ["main"]
