"""Faults that a person can mend; everything else is ours and gets a traceback."""


class UserError(Exception):
    """The user's to mend: the message says what was expected, what was found, what to do."""


class ImageError(UserError):
    """An image that cannot be read."""


class ArtifactError(UserError):
    """A model artifact that is missing, damaged, or of another format."""
