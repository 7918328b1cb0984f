"""Run the settings on SageMaker: requests, deployments, resources, cost. Uses boto3."""

import os

# The SDK prints a warning on every import.
os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
