"""SageMaker's side of a training job: files under /opt/ml, the stop signal, processes."""
