"""The one exception for mistakes a user can put right: shown as a single sentence, without a traceback."""


class UserError(Exception):
    """A wrong setting, a missing or damaged file, an impossible request.

    The message names the field or file, what was expected and what to do; `main` prints it and exits non-zero.
    """
