"""Explanations of the predictions of any endpoint, as by SageMaker Clarify, over HTTP."""
