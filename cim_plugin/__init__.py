"""Contrastive Input Morphing for DomainBed and WILDS.

:func:`build` gives a model for a training loop of one's own, :func:`load` a trained one. Importing this imports nothing
else: every Python start does it; what the two need is imported when they are first asked for.
"""

__version__ = "0.2.0"
__all__ = ["build", "load"]

TYPE_CHECKING = False  #: as checkers of types take it; typing's own would be an import
if TYPE_CHECKING:
    from .models.build import build
    from .models.load import load


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".models.{name}", __name__), name)


def __dir__():
    return sorted([*globals(), *__all__])
