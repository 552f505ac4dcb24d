"""Post-import hooks: register with a host the moment it is imported. Standard library only.

The files of ``site_packages/`` call :func:`install` at every start of this environment's Python, so importing this
module must stay cheap. ``CIM_PLUGIN_AUTOLOAD=0`` switches everything off.
"""

import os
import sys

#: host module -> "our module:function(host module)", called right after the host module has run
HOOKS = {
    "algorithms.initializer": "cim_plugin.hosts.wilds_examples.adapter:on_initializer",
    "configs.algorithm": "cim_plugin.hosts.wilds_examples.adapter:on_algorithm_defaults",
    "configs.supported": "cim_plugin.hosts.wilds_examples.adapter:on_supported",
    "domainbed.algorithms": "cim_plugin.hosts.domainbed.adapter:on_algorithms",
    "domainbed.command_launchers": "cim_plugin.hosts.domainbed.adapter:on_command_launchers",
    "domainbed.datasets": "cim_plugin.hosts.domainbed.adapter:on_datasets",
    "domainbed.hparams_registry": "cim_plugin.hosts.domainbed.adapter:on_hparams_registry",
    "domainbed.lib.fast_data_loader": "cim_plugin.hosts.domainbed.adapter:on_fast_data_loader",
    "domainbed.networks": "cim_plugin.hosts.domainbed.adapter:on_networks",
    "subpopbench.command_launchers": "cim_plugin.hosts.subpopbench.adapter:on_command_launchers",
    "subpopbench.dataset.fast_dataloader": "cim_plugin.hosts.subpopbench.adapter:on_fast_dataloader",
    "subpopbench.hparams_registry": "cim_plugin.hosts.subpopbench.adapter:on_hparams_registry",
    "subpopbench.learning.algorithms": "cim_plugin.hosts.subpopbench.adapter:on_algorithms",
    "subpopbench.learning.early_stopping": "cim_plugin.hosts.subpopbench.adapter:on_early_stopping",
    "subpopbench.models.networks": "cim_plugin.hosts.subpopbench.adapter:on_networks",
}


def warn(message):
    """Say what is wrong with us, once, and let the host go on."""
    import warnings

    warnings.warn(f"cim_plugin: {message}", RuntimeWarning, stacklevel=2)


def user_cache():
    """Our folder in the user's cache. A relative XDG_CACHE_HOME is ignored, as XDG's specification asks for."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.join(_home(), ".cache")
    return os.path.join(cache, "cim_plugin")


def _home():
    """The user's home: HOME's, or that of the table of users where it is unset, empty or relative."""
    home = os.path.expanduser("~")
    if os.path.isabs(home) and os.environ.get("HOME") != "":
        return home
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):  # not on Windows; a container may have a user who is in no table
        return os.path.abspath(os.sep)


def domainbed_cache():
    """The folder where ``cim-plugin get-domainbed`` puts DomainBed."""
    return os.path.join(user_cache(), "DomainBed")


def subpopbench_cache():
    """Where SubpopBench is looked for beside SUBPOPBENCH_HOME and the path."""
    return os.path.join(user_cache(), "SubpopBench")


#: package of a host that need not be on the path -> variable that names its checkout, a file by which the package is
#: known, the checkout in the user's cache
HOMES = {
    "domainbed": ("DOMAINBED_HOME", "__init__.py", domainbed_cache),
    "subpopbench": ("SUBPOPBENCH_HOME", "train.py", subpopbench_cache),
}


def _register(module):
    if FINDER not in sys.meta_path:  # switched off, maybe by a fault in a module that this one imported
        return
    where, _, function = HOOKS[module.__name__].partition(":")
    try:
        __import__(where)
        getattr(sys.modules[where], function)(module)
    except Exception as error:
        uninstall()  # one fault, one warning: what is half registered helps nobody
        warn(f"switched off, {module.__name__} goes on without it: {type(error).__name__}: {error}")


class _Loader:
    """A host module's own loader, and our hook once it has run the module."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def create_module(self, spec):
        return self._inner.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        _register(module)


class _Finder:
    """Wraps the loaders that the other finders give for host modules, and finds hosts that are not on the path."""

    def __init__(self):
        self._busy = (
            set()
        )  # names that the other finders are being asked for; importlib holds its lock around find_spec

    def find_spec(self, name, path=None, target=None):
        if name in self._busy or (name not in HOMES and name not in HOOKS):
            return None  # not ours, or another finder that asks all the others in its turn
        self._busy.add(name)
        try:
            return self._find_host(name, path, target) if name in HOMES else self._find_hooked(name, path, target)
        finally:
            self._busy.discard(name)

    def _find_hooked(self, name, path, target):
        spec = self._ask_others(name, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader)
        return spec

    def _ask_others(self, name, path, target):
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                return spec
        return None

    def _find_host(self, name, path, target):
        from importlib.machinery import PathFinder

        variable, file, cache = HOMES[name]
        home = os.environ.get(variable)
        if home:
            if os.path.isfile(os.path.join(home, name, file)):
                return PathFinder.find_spec(name, [os.path.abspath(home)], target)
            warn(f"{variable}={home} holds no {name}/{file} and is ignored; name the checkout's folder")
        spec = self._ask_others(name, path, target)
        if folder_of(spec, file) is None:
            spec = PathFinder.find_spec(name, [cache()], target) or spec
        return spec


def folder_of(spec, file):
    """The folder of a host's package, known by a file in it; None for nothing, or for a folder that only has the name:
    SubpopBench has no __init__.py.
    """
    folders = list(getattr(spec, "submodule_search_locations", None) or ())
    return next((folder for folder in folders if os.path.isfile(os.path.join(folder, file))), None)


FINDER = _Finder()


def install():
    """Hook the hosts, those that were imported earlier included. Calling it again changes nothing."""
    if FINDER in sys.meta_path:
        return
    sys.meta_path.insert(0, FINDER)
    for name in HOOKS:
        module = sys.modules.get(name)
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            _register(module)


def uninstall():
    """Undo :func:`install` for what is imported from now on."""
    if FINDER in sys.meta_path:
        sys.meta_path.remove(FINDER)
