"""``python -m cim_plugin``: the command ``cim-plugin``."""

import sys

from .cli import main

sys.exit(main())
