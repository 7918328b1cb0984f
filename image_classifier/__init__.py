"""The command-line workflow: prepare, train, tune, deploy and explain, locally or on AWS."""
