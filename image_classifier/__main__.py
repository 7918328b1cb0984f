"""Run `python -m image_classifier VERB`."""

from image_classifier.cli import main

raise SystemExit(main(program="python -m image_classifier"))
