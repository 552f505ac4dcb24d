"""Only what setup.cfg cannot say: the method's folders are packages of cim_plugin, no build does without them, and
editable installs ship the autoload's files too.
"""

import os
import sys

from setuptools import find_packages, setup
from setuptools.dist import Distribution

#: the method, and what makes setuptools list it as a package of cim_plugin
METHOD = [os.path.join(*folders, "algorithms", "__init__.py") for folders in ((), ("cim_plugin",))]


class WithDataFiles(Distribution):
    """setuptools' editable build asks for ``has_data``, which no distribution defines; answer for the data files."""

    def has_data(self):
        return self.has_data_files()


missing = [file for file in METHOD if not os.path.isfile(file)]
if missing:
    sys.exit(f"cim_plugin: error: {missing[0]} is missing, so the method would be; build from a whole checkout")
method = [f"cim_plugin.algorithms.{name}" for name in find_packages("algorithms")]
setup(packages=[*find_packages(include=["cim_plugin", "cim_plugin.*"]), *method], distclass=WithDataFiles)
