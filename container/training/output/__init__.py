"""What a job leaves behind: artifact, int8 network, metrics, plots and the report."""
