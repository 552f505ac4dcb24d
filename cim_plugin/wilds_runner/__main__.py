"""``python -m cim_plugin.wilds_runner ...`` is ``cim-plugin train ...``."""

import sys

from ..cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
