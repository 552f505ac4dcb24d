"""Python, the packages that this plugin declares, and whether torch and torchvision go together."""

from __future__ import annotations

import operator
import os
import platform
import re
from importlib import metadata, util
from typing import Iterator

from .. import __file__ as init_file
from .. import __version__
from ..errors import WHOLE
from ..wilds_runner import system
from .findings import ERROR, NOTE, OK, WARNING, Finding, Surroundings

OLDEST_PYTHON = (3, 10)
FOR_TESTS = "test"  #: the extra that only the plugin's own tests need
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?$")
_CLAUSE = re.compile(r"(>=|<=|==|!=|~=|>|<)\s*([\w.*+!-]+)")
_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def python(surroundings: Surroundings) -> Iterator[Finding]:
    version = platform.python_version()
    if tuple(map(int, platform.python_version_tuple()[:2])) < OLDEST_PYTHON:
        yield Finding(
            ERROR,
            f"Python {version} is too old",
            f"make an environment with Python {'.'.join(map(str, OLDEST_PYTHON))} or newer",
        )
    else:
        yield Finding(OK, f"Python {version} on {platform.system()} {platform.machine()}")
    if system.is_windows():
        yield Finding(WARNING, system.NO_WINDOWS, system.INSTEAD)


def plugin(surroundings: Surroundings) -> Iterator[Finding]:
    """Whether the method came along: an archive without links, or an installation from one, may have lost it."""
    folder = os.path.dirname(init_file)
    try:
        found = util.find_spec("cim_plugin.algorithms.classifier")
    except ImportError:
        found = None
    if found is None:
        yield Finding(ERROR, f"cim_plugin.algorithms, the method, is missing in {folder}: nothing trains", WHOLE)
    else:
        yield Finding(OK, f"cim_plugin {__version__} in {folder}")


def packages(surroundings: Surroundings) -> Iterator[Finding]:
    """What the installed plugin declares, with the extras that bring it."""
    try:
        declared = metadata.requires("cim_plugin") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            WARNING,
            "cim_plugin is not installed in this environment, only importable",
            "pip install it, so that its packages and the autoload come along",
        )
        return
    needed: dict[tuple[str, str], list[str]] = {}
    for requirement in declared:
        name, versions, marker = _REQUIREMENT.match(requirement).groups()
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", marker or "")
        if name.replace("-", "_") != "cim_plugin" and not (extra and extra.group(1) == FOR_TESTS):
            needed.setdefault((name, versions.strip()), []).append(extra.group(1) if extra else "")
    fine = 0
    for (name, versions), extras in needed.items():
        found = installed(name)
        brings = "pip install cim_plugin again" if "" in extras else f"pip install 'cim_plugin[{extras[0]}]'"
        if found is None:
            what = "every command needs it" if "" in extras else f"only extra {' and '.join(extras)} needs it"
            yield Finding(ERROR if "" in extras else NOTE, f"{name} is not installed; {what}", brings)
        elif not allows(versions, found):
            yield Finding(
                WARNING, f"{name} {found} is installed, {versions} is needed", f"pip install '{name}{versions}'"
            )
        else:
            fine += 1
    yield Finding(OK, f"{fine} of {len(needed)} packages are installed in a version that fits")


def torch_and_torchvision(surroundings: Surroundings) -> Iterator[Finding]:
    """Their declared versions, and whether a compiled operator of torchvision runs, in a process of its own."""
    versions = {name: installed(name) for name in ("torch", "torchvision")}
    missing = [name for name, version in versions.items() if version is None]
    wanted = _wanted_torch()
    if not missing and wanted and not allows(wanted, versions["torch"]):
        yield Finding(
            ERROR,
            f"torchvision {versions['torchvision']} is made for torch {wanted}, torch {versions['torch']} is installed",
            _TOGETHER,
        )
    said = surroundings.torch
    pair = (
        f"torch {said.get('torch', versions['torch'])} with torchvision "
        f"{said.get('torchvision', versions['torchvision'])}"
    )
    if "nms" not in said:
        stage = (
            "torch cannot be imported"
            if "torch" not in said
            else "torchvision cannot be imported"
            if "torchvision" not in said
            else "torchvision's operators fail"
        )
        yield Finding(ERROR, f"{pair}: {stage} ({said.get('fault')})", _TOGETHER)
        return
    if not said.get("nms"):
        yield Finding(ERROR, f"{pair}: torchvision's operators give wrong results", _TOGETHER)
    elif wanted is None or allows(wanted, said["torch"]):
        yield Finding(OK, f"{pair} go together")
    yield from _gpu(said)


_TOGETHER = (
    "install both in one command, which chooses a pair: pip install --upgrade --force-reinstall torch torchvision"
)


def _gpu(said: dict) -> Iterator[Finding]:
    gpus = said.get("gpus", [])
    if gpus:
        yield Finding(OK, f"{len(gpus)} GPU: {', '.join(gpus)}")
    elif said.get("built_for"):
        yield Finding(
            NOTE,
            f"torch is built for {said['built_for']} and sees no GPU: everything runs on the CPU",
            "where there should be one: nvidia-smi, the driver, CUDA_VISIBLE_DEVICES",
        )
    else:
        yield Finding(
            NOTE,
            "torch is built without GPU support: everything runs on the CPU",
            "https://pytorch.org/get-started tells the command for a GPU",
        )


def _wanted_torch() -> str | None:
    try:
        declared = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return None
    found = [
        match.group(2).strip() for match in map(_REQUIREMENT.match, declared) if match and match.group(1) == "torch"
    ]
    return found[0] if found else None


def installed(name: str) -> str | None:
    """The version of an installed package, None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def allows(versions: str, found: str) -> bool:
    """Whether a version is one that "1.2", ">=1.2,<3" and the like allow. Build labels and pre-release marks do not
    count.
    """
    return all(_allows(sign, wanted, _numbers(found)) for sign, wanted in _CLAUSE.findall(versions))


def _allows(sign: str, wanted: str, found: tuple[int, ...]) -> bool:
    numbers = _numbers(wanted)
    if sign == "~=":
        return found >= numbers and found[: len(numbers) - 1] == numbers[:-1]
    if wanted.endswith(".*"):
        found = found[: len(numbers)]
    length = max(len(found), len(numbers))
    return _COMPARE[sign](*(part + (0,) * (length - len(part)) for part in (found, numbers)))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]*", version).group().split(".") if part)
