"""The method: tensors in, losses out. Imports torch and pytorch_msssim only; imported as ``cim_plugin.algorithms``.

In a checkout its files are those of ``algorithms/`` beside the package; an installation holds them here, without this
file.
"""

import os

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))), "algorithms")
if not os.path.isfile(os.path.join(_FOLDER, "__init__.py")):
    raise ModuleNotFoundError(
        f"the folder {_FOLDER} is missing: this copy of cim_plugin is not whole, get the whole checkout or pip install it",
        name=__name__,
    )
__path__ = [_FOLDER]
del os
