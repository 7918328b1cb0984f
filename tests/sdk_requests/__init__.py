"""Requests of both generations of the SageMaker SDK, recorded, and compared with the command's."""
