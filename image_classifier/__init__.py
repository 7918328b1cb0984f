"""The commands on a person's machine: prepare, train, tune, deploy, explain, here or on AWS."""
