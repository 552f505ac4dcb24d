"""``cim-plugin get-domainbed``: a DomainBed checkout in the user's cache, where the autoload finds it."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile

from ...autoload import domainbed_cache
from ...errors import InputError

SOURCE = "https://github.com/facebookresearch/DomainBed"
COMMIT = "b93c22a1cfc3b2428398272c1a116c8de1f4139e"  #: the commit that this plugin is tested with

#: what a git hook or a shell around us may have set: they point git to another repository than the one in the cache
REPOSITORY_VARIABLES = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", metavar="URL_OR_FOLDER", default=SOURCE, help="git repository, remote or local, bare or not"
    )
    parser.add_argument("--commit", default=COMMIT, help="full or abbreviated commit to check out and verify")


def run(args: argparse.Namespace) -> int:
    """Clone, or bring a clean checkout to the commit; verify; say where it is."""
    folder = domainbed_cache()
    commit = args.commit.lower()
    source = os.path.abspath(args.source) if os.path.exists(args.source) else args.source  # git runs in another folder
    if not re.fullmatch("[0-9a-f]{4,40}", commit):
        raise InputError(
            f"--commit {args.commit!r} is not a commit of 4 to 40 hexadecimal digits; the tested one is {COMMIT}"
        )
    if shutil.which("git") is None:
        raise InputError("git is not installed; install it, or set DOMAINBED_HOME to an unpacked DomainBed")
    if os.path.lexists(folder):
        update(folder, source, commit)
    else:
        print(f"cloning {source} into {folder} ...", flush=True)
        clone(source, commit, folder)
    changed = " with changes of yours" if _is_modified(folder) else ""
    print(f"DomainBed {_head(folder)[:12]}{changed} is in {folder}")
    print(
        "try: python -m domainbed.scripts.train --algorithm CIM --dataset DebugDigitsOnPhotos --test_envs 2 --steps 101"
    )
    return 0


def clone(source: str, commit: str, folder: str) -> None:
    """Clone ``source`` at ``commit`` into ``folder``, which appears whole or not at all.

    Raises:
        InputError: the source cannot be read, the commit is not in it, or the folder cannot be written.
    """
    parent = os.path.dirname(folder)
    try:
        os.makedirs(parent, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".DomainBed-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(
            f"cannot write to {parent} ({error.strerror}); set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    with temporary:
        checkout = os.path.join(temporary.name, "DomainBed")
        try:
            _git("clone", "--quiet", "--no-checkout", "--", source, checkout)
        except InputError as error:
            fix = "without network pass --source with a folder that holds a clone, or set DOMAINBED_HOME to a checkout"
            raise InputError(f"cannot clone {source} ({error}); {fix}") from error
        _check_out(checkout, source, commit)
        try:
            os.replace(checkout, folder)
        except OSError:  # another run put its checkout there first
            update(folder, source, commit)


def update(folder: str, source: str, commit: str) -> None:
    """Bring an existing clean checkout to ``commit``; never touch a modified one.

    Raises:
        InputError: the folder is no checkout, was modified, or the commit cannot be had.
    """
    if not os.path.exists(os.path.join(folder, ".git")):
        raise InputError(
            f"{folder} exists and is not a git checkout; move it away, or set DOMAINBED_HOME to another checkout"
        )
    head = _head(folder)
    if head.startswith(commit):
        return
    if _is_modified(folder):
        fix = f"commit them to a branch or undo them, or pass --commit {head[:12]}"
        raise InputError(f"{folder} has changes of yours and is left as it is, at {head[:12]}; {fix}")
    try:
        _git("-C", folder, "fetch", "--quiet", "--", source, "HEAD", "+refs/heads/*:refs/remotes/origin/*")
    except InputError as error:
        raise InputError(
            f"cannot fetch from {source} ({error}); the checkout in {folder} stays at {head[:12]}"
        ) from error
    _check_out(folder, source, commit)


def _check_out(folder: str, source: str, commit: str) -> None:
    """Verify first, so that a checkout that cannot be moved to the commit stays where it is."""
    try:
        resolved = _git("-C", folder, "rev-parse", "--verify", f"{commit}^{{commit}}")
    except InputError:
        resolved = ""
    if not resolved.startswith(commit):  # nothing, or a branch whose name looks like a commit
        raise InputError(f"commit {commit!r} is not in {source}, or is ambiguous; the tested one is {COMMIT}")
    try:
        _git("-C", folder, "cat-file", "-e", f"{resolved}:domainbed/__init__.py")
    except InputError as error:
        raise InputError(
            f"{source} at {commit} holds no domainbed/__init__.py: it is not DomainBed; the public repository is "
            f"{SOURCE}"
        ) from error
    _git("-C", folder, "checkout", "--quiet", "--detach", resolved)


def _head(folder: str) -> str:
    try:
        return _git("-C", folder, "rev-parse", "--verify", "HEAD")
    except InputError as error:
        raise InputError(f"{folder} cannot be used as a git checkout ({error}); move it away and try again") from error


def _is_modified(folder: str) -> bool:
    """Whether somebody's work could be lost: changed files, or commits that no branch or tag holds."""
    changed = _git("-C", folder, "status", "--porcelain", "--untracked-files=no")
    return bool(
        changed or _git("-C", folder, "rev-list", "--max-count=1", "HEAD", "--not", "--branches", "--remotes", "--tags")
    )


def _git(*words: str) -> str:
    """Run git in English, without prompts and without the hooks of a repository; its output, or InputError with all
    that it says, in one line.
    """
    environment = {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}
    environment |= {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_CEILING_DIRECTORIES": os.path.dirname(domainbed_cache()),
    }
    done = subprocess.run(
        ["git", "-c", "core.hooksPath=/dev/null", *words],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
    )
    if done.returncode:
        raise InputError(" ".join(done.stderr.split()) or f"git {words[0]} failed with status {done.returncode}")
    return done.stdout.strip()
