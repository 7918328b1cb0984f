"""SageMaker's side of the contract on this machine: the /opt/ml tree, train, serve, predict."""
