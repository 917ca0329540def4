"""The one exception a user is meant to read."""


class GraphgenError(Exception):
    """Something the user can put right.

    The message is one line: what was wrong, where, and what to do about it. The command line prints it
    without a traceback and exits with status 1.
    """
