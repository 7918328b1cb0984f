"""Times of a training and what its machine did meanwhile, in SageMaker's files."""
