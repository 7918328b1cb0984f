"""Records tensors and times of a running training job."""
