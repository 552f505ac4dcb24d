"""How a command ends: exceptions that people see as a single line, and the exit status."""

from __future__ import annotations

import os
import sys
from typing import Callable

#: the fix where a part of the plugin itself is missing
WHOLE = "cim_plugin is not whole here: pip install it again, with --force-reinstall, from a whole checkout"


class InputError(ValueError):
    """Something that the user gave is wrong. The message is one line that names the value and the fix.

    Command lines print it and exit with status 2; in a library call it is an ordinary ValueError.
    """


class NotFinite(Exception):
    """A loss, a weight or a prediction of a training is NaN or infinite; the message says where."""


def exit_status(name: str, command: Callable[[], int], stopped: str = "stopped") -> int:
    """Run a command: its own exit status; 2 for a wrong input or a part of ours that is missing, in one line; 130 on
    Ctrl-C; 141 where nobody reads on.

    Args:
        name: of the command, before what is said.
        stopped: what is said on Ctrl-C.
    """
    try:
        status = command()
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != __package__:
            raise
        print(f"{name}: error: the module {error.name} is missing; {WHOLE}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: {stopped}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, e.g. head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer has somewhere to go
        return 141
