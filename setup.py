"""Only what setup.cfg cannot say: editable installs ship the autoload file too."""

from setuptools import setup
from setuptools.dist import Distribution


class WithDataFiles(Distribution):
    """setuptools' editable build asks for ``has_data``, which no distribution defines; answer for the data files."""

    def has_data(self):
        return self.has_data_files()


setup(distclass=WithDataFiles)
