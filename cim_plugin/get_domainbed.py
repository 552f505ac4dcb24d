"""``cim-plugin get-domainbed``: a DomainBed checkout in the user's cache, where the autoload finds it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile

from .autoload import domainbed_cache
from .errors import InputError

SOURCE = "https://github.com/facebookresearch/DomainBed"
COMMIT = "b93c22a1cfc3b2428398272c1a116c8de1f4139e"  #: the commit that this plugin is tested with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", metavar="URL_OR_FOLDER", default=SOURCE, help="git repository, remote or local, bare or not")
    parser.add_argument("--commit", default=COMMIT, help="full or abbreviated commit to check out and verify")


def run(args: argparse.Namespace) -> int:
    """Clone, or bring a clean checkout to the commit; verify; say where it is."""
    folder = domainbed_cache()
    if os.path.lexists(folder):
        update(folder, args.source, args.commit)
    else:
        print(f"cloning {args.source} into {folder} ...", flush=True)
        clone(args.source, args.commit, folder)
    print(f"DomainBed {_git('-C', folder, 'rev-parse', 'HEAD')[:12]} is in {folder}")
    print("try: python -m domainbed.scripts.train --algorithm CIM --dataset DebugDigitsOnPhotos --test_envs 2 --steps 101")
    return 0


def clone(source: str, commit: str, folder: str) -> None:
    """Clone ``source`` at ``commit`` into ``folder``, which appears whole or not at all.

    Raises:
        InputError: git is missing, the source cannot be read, the commit is not in it, or the folder cannot be written.
    """
    parent = os.path.dirname(folder)
    try:
        os.makedirs(parent, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=".DomainBed-", dir=parent)
    except OSError as error:
        raise InputError(f"cannot write to {parent} ({error.strerror}); set XDG_CACHE_HOME to a folder that can be written") from error
    try:
        checkout = os.path.join(temporary, "DomainBed")
        try:
            _git("clone", "--quiet", "--no-checkout", "--", source, checkout)
        except InputError as error:
            raise InputError(
                f"cannot clone {source} ({error}); on a machine without network pass --source with a folder that holds a clone, or set DOMAINBED_HOME to a checkout"
            ) from error
        _check_out(checkout, source, commit)
        os.replace(checkout, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def update(folder: str, source: str, commit: str) -> None:
    """Bring an existing clean checkout to ``commit``; never touch a modified one.

    Raises:
        InputError: the folder is no checkout, was modified, or the commit cannot be had.
    """
    if not os.path.exists(os.path.join(folder, ".git")):
        raise InputError(f"{folder} exists and is not a git checkout; move it away, or set DOMAINBED_HOME to another checkout")
    head = _git("-C", folder, "rev-parse", "HEAD")
    if head.startswith(commit):
        return
    if _git("-C", folder, "status", "--porcelain", "--untracked-files=no"):
        raise InputError(f"{folder} has local changes and is left as it is, at {head[:12]}; commit or undo them, or pass --commit {head[:12]}")
    try:
        _git("-C", folder, "fetch", "--quiet", source)
    except InputError as error:
        raise InputError(f"cannot fetch from {source} ({error}); the checkout in {folder} stays at {head[:12]}") from error
    _check_out(folder, source, commit)


def _check_out(folder: str, source: str, commit: str) -> None:
    try:
        resolved = _git("-C", folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    except InputError as error:
        raise InputError(f"commit {commit!r} is not in {source}; the tested one is {COMMIT}") from error
    _git("-C", folder, "checkout", "--quiet", "--detach", resolved)
    if not os.path.isfile(os.path.join(folder, "domainbed", "__init__.py")):
        raise InputError(f"{source} at {commit} holds no domainbed/__init__.py: it is not DomainBed; the public repository is {SOURCE}")
    if _git("-C", folder, "rev-parse", "HEAD") != resolved:
        raise InputError(f"{folder} is not at {commit} after the checkout; remove it and try again")


def _git(*words: str) -> str:
    """Run git without prompts or the hooks of a repository; its output, or InputError with its last line."""
    if shutil.which("git") is None:
        raise InputError("git is not installed; install it, or set DOMAINBED_HOME to an unpacked DomainBed")
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environment.pop(name, None)
    done = subprocess.run(["git", "-c", "core.hooksPath=/dev/null", *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise InputError(lines[-1] if lines else f"git {words[0]} failed with status {done.returncode}")
    return done.stdout.strip()
