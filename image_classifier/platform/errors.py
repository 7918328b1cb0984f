"""Faults that a person can mend."""


class UserError(Exception):
    """The user's to mend: the message says what was expected, what was found, what to do."""
