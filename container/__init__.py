"""What goes into the two container images: training, serving and what they share."""
