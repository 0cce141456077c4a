"""The one error that a user sees."""


class UserError(Exception):
    """Bad input, told in one line: what was wrong, and what is valid.

    The command line prints the message without a traceback and exits with code 2.
    """
