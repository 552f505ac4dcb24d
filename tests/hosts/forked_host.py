"""Python command lines of a host, run in forks of one process that has the heavy imports behind it.

A fresh interpreter spends five to ten seconds on torch, torchvision, timm and wilds; a fork of one that has them spends
none. Host and plugin are imported after the fork, the plugin by what its autoload files call, as ``site`` does it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SMALL_HOST = Path(__file__).parent / "small_host"
AUTOLOAD = Path(__file__).parents[2] / "site_packages" / "cim_plugin_autoload" / "__init__.py"
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "wilds.datasets.camelyon17_dataset",
    "wilds.datasets.fmow_dataset",
    "sklearn.datasets",
    "pytorch_msssim",
)

#: for every run: one thread, and no network to wait for
ALWAYS = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
}


def run(
    host: Path, *words: str, cwd: Path | str = os.sep, timeout: int = 100, **environment: str
) -> subprocess.CompletedProcess:
    """What ``python words`` does, words being ``-m module ...`` or ``-c code ...``, with ``host`` on the path.

    Args:
        host: a folder with a package ``domainbed`` or ``subpopbench``.
        timeout: seconds after which the run is ended; its status is then that of a signal.
        environment: variables; ``CIM_PLUGIN_AUTOLOAD="0"`` switches the plugin off.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            **variables(host),
            "TMPDIR": folder,
            **environment,
        }  # what data loaders leave behind goes with the folder
        request = {"words": words, "cwd": str(cwd), "variables": settings, "timeout": timeout, "folder": folder}
        _server().stdin.write(json.dumps(request) + "\n")
        _server().stdin.flush()
        status = int(_server().stdout.readline())
        stdout, stderr = ((Path(folder) / name).read_text() for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(words, status, stdout, stderr)


def run_fresh(host: Path, *words: str, cwd: Path | str = os.sep, **environment: str) -> subprocess.CompletedProcess:
    """The same in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, **variables(host), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def variables(host: Path) -> dict[str, str]:
    """The environment variables of every run."""
    path = os.pathsep.join(filter(None, (str(host), os.environ.get("PYTHONPATH"))))
    return {**ALWAYS, "CIM_PLUGIN_AUTOLOAD": "1", "DOMAINBED_HOME": str(host), "PYTHONPATH": path}


@functools.cache
def _server() -> subprocess.Popen:
    settings = {**os.environ, **ALWAYS, "CIM_PLUGIN_AUTOLOAD": "0"}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings
    )
    atexit.register(process.communicate)  # the end of its input ends it
    return process


def _serve() -> None:
    """One request a line, one exit status a line."""
    for module in HEAVY:
        with contextlib.suppress(ImportError):  # the small host needs torch only
            importlib.import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = _status(**json.loads(line))
            for worker in multiprocessing.active_children():
                worker.terminate()
            sys.stdout.flush()
            os._exit(status)  # an interpreter's orderly end takes seconds after these imports
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _status(words: list[str], cwd: str, variables: dict[str, str], timeout: int, folder: str) -> int:
    """Run the words and do with exceptions what an interpreter does at its end."""
    signal.alarm(timeout)
    for number, name in enumerate((os.devnull, f"{folder}/stdout", f"{folder}/stderr")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    os.environ.update(variables)
    os.chdir(cwd)
    sys.path[:1] = [cwd, *variables["PYTHONPATH"].split(os.pathsep)]
    try:
        try:
            _execute(*words)
        except Exception:
            sys.excepthook(*sys.exc_info())
            return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _execute(option: str, what: str, *arguments: str) -> None:
    runpy.run_path(str(AUTOLOAD))["start"]()
    sys.argv = [option, *arguments]
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    _serve()
