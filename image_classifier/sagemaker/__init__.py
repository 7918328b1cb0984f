"""Runs the settings on SageMaker: requests, deployments, resources, cost. boto3 is here."""
