"""The one exception that people see as a single line."""


class InputError(ValueError):
    """Something that the user gave is wrong. The message is one line that names the value and the fix.

    Command lines print it and exit with status 2; in a library call it is an ordinary ValueError.
    """
