"""Explains the predictions of any endpoint, as SageMaker Clarify does.

Sends requests over HTTP only; the endpoint may be local or on SageMaker.
"""
