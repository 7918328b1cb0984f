"""Watches a training: tensors, rules, times, reports; without it a training is the same."""
