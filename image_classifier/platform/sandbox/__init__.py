"""One program in the strict environment of SageMaker: a container or a plain process."""
