"""Settings files of known projects, and objects of the SageMaker SDK, version 3."""
