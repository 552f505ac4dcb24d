"""Where the hosts are, what of the data is there, and how much room is left."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import Iterator

from .. import autoload
from ..errors import InputError
from ..hosts.domainbed.get import COMMIT, _head, _is_modified
from ..hosts.subpopbench.faults import COMMIT as SUBPOPBENCH
from ..hosts.subpopbench.faults import NEEDS
from ..hosts.wilds_examples.adapter import TRANSFORMERS
from .findings import ERROR, NOTE, OK, WARNING, Finding, Surroundings
from .packages import allows, installed
from .weights import hub

PTH = "cim_plugin_autoload.pth"
WITHOUT_AUTOLOAD = "'python -m cim_plugin.domainbed train|sweep|...' does without"
SAME_FLAGS = "'cim-plugin train' takes the same flags"
GB = 10**9
ROOM = 1 * GB  #: less free disk is a warning


def autoload_state(surroundings: Surroundings) -> Iterator[Finding]:
    folders = {*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("purelib")}
    files = sorted(path for folder in folders if (path := Path(folder, PTH)).is_file())
    if os.environ.get("CIM_PLUGIN_AUTOLOAD", "1") == "0":
        yield Finding(
            WARNING,
            "the autoload is switched off by CIM_PLUGIN_AUTOLOAD=0: DomainBed's own scripts do not know our algorithms",
            f"unset it; {WITHOUT_AUTOLOAD}",
        )
    elif not files:
        yield Finding(
            WARNING,
            f"no {PTH} in site-packages: DomainBed's own scripts do not know our algorithms",
            f"pip install the plugin into {sys.prefix}; {WITHOUT_AUTOLOAD}",
        )
    elif autoload.FINDER not in sys.meta_path:
        yield Finding(
            WARNING,
            f"{files[0]} is there and was not run (python -S or -I?)",
            f"start Python without that; {WITHOUT_AUTOLOAD}",
        )
    else:
        yield Finding(OK, f"the autoload is on, by {files[0]}")


def domainbed(surroundings: Surroundings) -> Iterator[Finding]:
    """The one that ``python -m domainbed...`` would find from here, and its commit."""
    yield from _host("DomainBed", "domainbed", COMMIT, "cim-plugin get-domainbed, or set DOMAINBED_HOME to a checkout")


def subpopbench(surroundings: Surroundings) -> Iterator[Finding]:
    """The one that ``python -m subpopbench.train`` would find from here, its commit, and what it needs."""
    if find_host("subpopbench") is None and not os.environ.get("SUBPOPBENCH_HOME"):
        yield Finding(NOTE, "no SubpopBench is found", "set SUBPOPBENCH_HOME to a checkout, or start in it")
        return
    yield from _host("SubpopBench", "subpopbench", SUBPOPBENCH, "set SUBPOPBENCH_HOME to a checkout")
    wanted = [f"{name}{versions}" for name, versions in NEEDS.items() if not _has(name, versions)]
    if wanted:
        packages = " ".join(f"'{one}'" for one in wanted)
        yield Finding(NOTE, f"SubpopBench does not start without {', '.join(wanted)}", f"pip install {packages}")


def _has(name: str, versions: str) -> bool:
    version = installed(name)
    return version is not None and (not versions or allows(versions, version))


def _host(name: str, package: str, tested: str, get: str) -> Iterator[Finding]:
    variable = autoload.HOMES[package][0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder = find_host(package)
    for warning in caught:
        yield Finding(
            WARNING, str(warning.message).removeprefix("cim_plugin: "), f"set {variable} to a checkout, or unset it"
        )
    if folder is None:
        yield Finding(NOTE, f"no {name} is found; 'cim-plugin train' does without", get)
    else:
        yield checkout(name, folder, tested)


def find_host(package: str) -> str | None:
    """The folder that holds the package of a host; the current folder counts, as it does for ``python -m``."""
    sys.path.insert(0, os.getcwd())
    try:
        spec = autoload.FINDER.find_spec(package)
    finally:
        sys.path.pop(0)
    folder = autoload.folder_of(spec, autoload.HOMES[package][1])
    return None if folder is None else os.path.dirname(os.path.abspath(folder))


def checkout(name: str, folder: str, tested: str) -> Finding:
    """Whether a host's folder is at the commit that the plugin is tested with."""
    if not os.path.exists(os.path.join(folder, ".git")):
        return Finding(
            NOTE,
            f"{name} in {folder} is no git checkout, so its commit is not known",
            f"the plugin is tested with {tested[:12]}",
        )
    try:
        head = _head(folder)
        modified = " with changes of yours" if _is_modified(folder) else ""
    except (InputError, OSError, subprocess.SubprocessError) as error:
        return Finding(
            NOTE,
            f"{name} is in {folder}; its commit is not known ({error})",
            f"the plugin is tested with {tested[:12]}",
        )
    if not head.startswith(tested):
        return Finding(
            WARNING,
            f"{name} in {folder} is at {head[:12]}{modified}, the plugin is tested with {tested[:12]}",
            f"git -C {folder} checkout {tested[:12]}"
            + (", or cim-plugin get-domainbed" if name == "DomainBed" else ""),
        )
    return Finding(NOTE if modified else OK, f"{name} in {folder} is at the tested commit {head[:12]}{modified}")


def wilds(surroundings: Surroundings) -> Iterator[Finding]:
    """The package, and a checkout in WILDS_HOME or the current folder: the plugin registers there by its autoload."""
    version = installed("wilds")
    if version is None:
        yield Finding(
            NOTE, "the wilds package is not installed; 'cim-plugin train' needs it", "pip install 'cim_plugin[wilds]'"
        )
    else:
        yield Finding(OK, f"the wilds package is installed, {version}")
    for folder in filter(None, dict.fromkeys((os.environ.get("WILDS_HOME"), os.getcwd()))):
        if os.path.isfile(os.path.join(folder, "examples", "run_expt.py")):
            knows = (
                "knows our algorithms by the autoload"
                if autoload.FINDER in sys.meta_path
                else "does not know our algorithms, the autoload is off"
            )
            missing = without_transformers()
            needs = f", and does not start: {missing}" if missing else ""
            yield Finding(NOTE, f"a WILDS checkout is in {folder}; its run_expt.py {knows}{needs}", SAME_FLAGS)
        elif folder == os.environ.get("WILDS_HOME"):
            yield Finding(
                WARNING, f"WILDS_HOME={folder} holds no examples/run_expt.py", "set it to a checkout, or unset it"
            )


def without_transformers() -> str | None:
    """Why WILDS' examples cannot import what they need, in words; by the installed version, nothing is imported."""
    version = installed("transformers")
    if version is None:
        return "transformers is not installed"
    return None if allows(TRANSFORMERS, version) else f"transformers {version} is installed, {TRANSFORMERS} is needed"


def data(surroundings: Surroundings) -> Iterator[Finding]:
    from ..data.check import ABSENT, INCOMPLETE, SYNTHETIC, examine
    from ..data.releases import RELEASES

    levels = {INCOMPLETE: WARNING, SYNTHETIC: NOTE}
    roots = list(
        dict.fromkeys(
            filter(None, (surroundings.root_dir or (None if surroundings.data_dir else "data"), surroundings.data_dir))
        )
    )
    for root in roots:
        if not os.path.isdir(root):
            given = root in (surroundings.root_dir, surroundings.data_dir)
            yield Finding(
                WARNING if given else NOTE,
                f"no folder {root} with data sets",
                "name it by --root_dir or --data_dir; 'cim-plugin data --help' says how to get some",
            )
            continue
        absent = []
        for name, release in RELEASES.items():
            try:
                finding = examine(release, root)
            except Exception as error:  # a folder that may not be read, a damaged file system
                yield Finding(WARNING, f"{name} in {root} cannot be looked at: {error}", "look at its rights")
                continue
            if finding.state == ABSENT:
                absent.append(name)
            else:
                fix = (
                    f"cim-plugin data check --root {root} --dataset {name} --images"
                    if finding.state == INCOMPLETE
                    else None
                )
                yield Finding(levels.get(finding.state, OK), f"{name} is {finding.state}: {finding.words}", fix)
        if absent:
            yield Finding(
                NOTE,
                f"not in {root}: {', '.join(absent)}",
                f"'cim-plugin data check --root {root} --dataset NAME' says how to get one",
            )


def image_cache(surroundings: Surroundings) -> Iterator[Finding]:
    """Decoded images that 'cim-plugin train' keeps for all runs."""
    folder = Path(autoload.user_cache(), "images")
    kept = sorted(folder.glob("*.npy")) if folder.is_dir() else []
    size = sum(path.stat().st_size for path in kept)
    yield Finding(OK, f"{len(kept)} image caches in {folder}, {size / GB:.2f} GB")
    left = sorted(folder.glob("*.part")) if folder.is_dir() else []
    if left:
        yield Finding(
            NOTE,
            f"{len(left)} unfinished image caches, the first is {left[0]}",
            "where no run is at work they can be removed",
        )


def disk(surroundings: Surroundings) -> Iterator[Finding]:
    """Room where data, runs and caches go, once per file system."""
    seen = set()
    for folder in (os.getcwd(), surroundings.root_dir or "data", autoload.user_cache(), str(hub())):
        existing = existing_parent(folder)
        device = os.stat(existing).st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(existing).free
        if free < ROOM:
            yield Finding(
                WARNING,
                f"{free / GB:.2f} GB are free at {existing}",
                "make room: a run that meets a full disk stops, and goes on with --resume",
            )
        else:
            yield Finding(OK, f"{free / GB:.0f} GB are free at {existing}")


def existing_parent(folder: str) -> str:
    """The folder, or the nearest one above it that exists."""
    folder = os.path.abspath(folder)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def writable(folder: str, flag: str) -> Finding | None:
    """An error where a run could not write its folder."""
    existing = existing_parent(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        return Finding(ERROR, f"{flag} {folder} is a file", "choose another folder")
    return (
        None
        if os.access(existing, os.W_OK)
        else Finding(ERROR, f"{flag} {folder} cannot be written", "choose another folder")
    )
