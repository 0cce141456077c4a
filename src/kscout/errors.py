"""How a command or a run ends early."""


class UserError(Exception):
    """Bad input, told in one line: what was wrong, and what is valid.

    The command line prints the message without a traceback and exits with code 2.
    """


class StorageError(UserError):
    """Something could not be written: the disk is full, say, or the folder read-only."""


class Stopped(Exception):
    """A run that was told to stop; it can go on later."""
