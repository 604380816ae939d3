"""The error for everything that a user can cause."""


class UserError(ValueError):
    """Its message says what was found, what was expected and what to do next, in one line.

    The command line prints the message and exits with code 2. Everything else
    that escapes is a bug of ours and keeps its traceback.
    """
