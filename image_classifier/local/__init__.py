"""Runs the same settings on this machine: `--local`."""
