"""The frozen stage: features of a frozen backbone, and linear heads trained on them."""
