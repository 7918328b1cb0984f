"""A job on this machine that SIGINT or SIGTERM has stopped."""


class StoppedError(KeyboardInterrupt):
    """The job was stopped as requested; the message states how to continue."""
