"""The one exception for mistakes a user can put right: shown as a single sentence, without a traceback."""


class UserError(Exception):
    """A wrong setting, a missing or damaged file, an impossible request.

    The message names the field or file, says what was expected and what to do; the command prints it and ends with
    status 2.
    """
