"""What every start of Python calls where cim_plugin is installed: by ``cim_plugin_autoload.start`` from Python 3.15 on
(PEP 829), by ``cim_plugin_autoload.pth`` before.

It lies beside both, outside the package: under an editable install the package may be gone, and Python then starts in
silence. A folder, because uv leaves the byte code of single modules behind.
"""

import os


def start():
    """Hook the hosts, unless ``CIM_PLUGIN_AUTOLOAD=0`` or there is no plugin."""
    if os.environ.get("CIM_PLUGIN_AUTOLOAD", "1") == "0":
        return
    try:
        from cim_plugin import autoload
    except ImportError:  # a checkout that was moved or deleted
        return
    autoload.install()
