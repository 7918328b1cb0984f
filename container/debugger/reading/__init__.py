"""Reads tensor files, logs and metrics into records."""
