"""``cim-plugin doctor``: what is installed, found and fast enough to say, what a given command line would run into, and
what to do about it.
"""

from .command import add_arguments, run

__all__ = ["add_arguments", "run"]
