"""Finds what SageMaker would reject in a container image or a program."""
