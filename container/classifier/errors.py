"""Errors that a user can fix; all other exceptions are bugs and get a traceback."""


class UserError(Exception):
    """An error of the user; the message has the rule, the value found, and what to do."""


class ImageError(UserError):
    """An image that cannot be read."""


class ArtifactError(UserError):
    """A model artifact that is missing, damaged, or of another format."""
