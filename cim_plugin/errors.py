"""How a command ends: exceptions that people see as a single line, and the exit status."""

from __future__ import annotations

import codecs
import contextlib
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


def first_line(error: BaseException) -> str:
    """Of a message; the error's kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def exit_status(name: str, command: Callable[[], int], stopped: str = "stopped") -> int:
    """Run a command: its own exit status; 2 for a wrong input, a part of ours that is missing or where the disk
    refuses,
    in one line; 130 on Ctrl-C; 141 where nobody reads on.

    Args:
        name: of the command, before what is said.
        stopped: what is said on Ctrl-C.
    """
    _print_anything()
    try:
        status = command()
        sys.stdout.flush()
        return status
    except InputError as error:
        return _refused(name, str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != __package__:
            raise
        return _refused(name, f"the module {error.name} is missing; {WHOLE}")
    except KeyboardInterrupt:
        print(f"{name}: {stopped}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, e.g. head, has seen enough
        _print_nowhere()
        return 141
    except OSError as error:  # a disk that is full or gone, a right that is missing
        if error.filename is None:
            _print_nowhere()  # it may be what standard output is written to, which is flushed once more at the end
        where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return _refused(name, f"{where}{error.strerror or error}; look at the disk and its rights, and try again")
    except Warning as warning:
        return _refused(name, f"{type(warning).__name__}: {warning} (an error because of -W or PYTHONWARNINGS)")


def _refused(name: str, why: str) -> int:
    print(f"{name}: error: {' '.join(why.splitlines())}", file=sys.stderr)
    return 2


def _print_nowhere() -> None:
    """What is left in the buffer of standard output has somewhere to go."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_anything() -> None:
    """Whatever a terminal's encoding lacks does not end a command, and in a log of both streams the order is kept."""
    codecs.register_error("cim_plugin", _shown)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="cim_plugin", line_buffering=True)


def _shown(error: UnicodeError) -> tuple[str | bytes, int]:
    """The bytes of a path that are no text in this locale, as they are; a question mark for any other character."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return b"".join(bytes([ord(c) - 0xDC00]) if 0xDC80 <= ord(c) <= 0xDCFF else b"?" for c in text), error.end
