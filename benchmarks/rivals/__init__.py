"""Other servers for comparison, with the same weights, preprocessing and predictions."""
