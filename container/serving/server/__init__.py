"""gunicorn: its settings, admission control and the drain on SIGTERM."""
