"""The method: tensors in, losses out. Imports numpy and torch only; imported as ``cim_plugin.algorithms``.

In a checkout its files are those of ``algorithms/`` beside the package; an installation holds them here, without this
file.
"""

import os

from ..errors import WHOLE

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))), "algorithms")
if not os.path.isfile(os.path.join(_FOLDER, "__init__.py")):
    raise ModuleNotFoundError(f"there is no folder {_FOLDER}; {WHOLE}", name=__name__)
__path__ = [_FOLDER]
del os, WHOLE
