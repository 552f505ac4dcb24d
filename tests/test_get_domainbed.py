"""``cim-plugin get-domainbed`` in fresh processes, on git repositories made here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from interpreters import run_python

from cim_plugin.hosts.domainbed.get import COMMIT

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

#: git as a test uses it, whatever the user's configuration
GIT_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "test"), ("EMAIL", "test@localhost"))
}


class Source(NamedTuple):
    """A repository that looks like DomainBed, and its history."""

    folder: Path
    old: str
    new: str  #: the head of the first branch, and of the repository
    side: str  #: the head of a second branch
    foreign: str  #: the head of a third branch, which holds no domainbed/__init__.py


def git(folder: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | GIT_IDENTITY
    done = subprocess.run(["git", "-C", str(folder), *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder: Path, text: str) -> str:
    (folder / "domainbed" / "__init__.py").write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", text or "empty")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    folder = tmp_path_factory.mktemp("source") / "Domain Bed"
    (folder / "domainbed").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    old = commit(folder, "VERSION = 1\n")
    git(folder, "checkout", "--quiet", "-b", "side")
    side = commit(folder, "VERSION = 'side'\n")
    git(folder, "rm", "--quiet", "-r", "domainbed")
    (folder / "README").write_text("not DomainBed")
    git(folder, "add", "README")
    git(folder, "checkout", "--quiet", "-b", "foreign")
    git(folder, "commit", "--quiet", "-m", "another project")
    foreign = git(folder, "rev-parse", "HEAD")
    git(folder, "checkout", "--quiet", "main")
    return Source(folder, old, commit(folder, "VERSION = 2\n"), side, foreign)


@pytest.fixture
def cache(tmp_path) -> Path:
    """Where the checkout of this test goes."""
    return tmp_path / "cache" / "cim_plugin" / "DomainBed"


def get_domainbed(cache: Path, *words: object, **environment: str | None) -> subprocess.CompletedProcess:
    settings = {"XDG_CACHE_HOME": str(cache.parent.parent), "DOMAINBED_HOME": None, **environment}
    return run_python(
        "-m", "cim_plugin.cli", "get-domainbed", *map(str, words), cwd=settings.pop("cwd", None), **settings
    )


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """Exit status 2 and one line on stderr that names the values and the fix."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("cim-plugin get-domainbed: error: ")
    for word in words:
        assert word in done.stderr


def state(folder: Path) -> dict[str, object]:
    """All that a user could miss: the head, the branches, every file outside .git."""
    files = {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }
    return {
        "head": git(folder, "rev-parse", "HEAD"),
        "branches": git(folder, "for-each-ref", "refs/heads"),
        "files": files,
    }


# --- the first time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [40, 12, 7])
def test_clones_at_the_full_or_abbreviated_commit(source, cache, length):
    done = get_domainbed(cache, "--source", source.folder, "--commit", source.old[:length].upper())
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"DomainBed {source.old[:12]} is in {cache}" in done.stdout
    assert git(cache, "rev-parse", "HEAD") == source.old
    assert (cache / "domainbed" / "__init__.py").read_text() == "VERSION = 1\n"
    assert os.listdir(cache.parent) == ["DomainBed"]


def test_clones_from_a_bare_repository_a_url_and_a_relative_folder(source, tmp_path, cache):
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(source.folder), str(bare))
    for number, name in enumerate((bare, bare.as_uri(), "bare.git")):
        folder = tmp_path / str(number) / "cim_plugin" / "DomainBed"
        assert get_domainbed(folder, "--source", name, "--commit", source.side, cwd=tmp_path).returncode == 0
        assert git(folder, "rev-parse", "HEAD") == source.side


def test_afterwards_domainbed_is_importable_from_any_folder(source, tmp_path, cache):
    get_domainbed(cache, "--source", source.folder, "--commit", source.old)
    code = (
        "from cim_plugin import autoload; autoload.install(); import domainbed; print(domainbed.VERSION, "
        "domainbed.__file__)"
    )
    done = run_python("-c", code, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"), DOMAINBED_HOME=None)
    assert done.stdout.split() == ["1", str(cache / "domainbed" / "__init__.py")]


def test_two_at_once_leave_one_whole_checkout(source, cache):
    words = [
        sys.executable,
        "-m",
        "cim_plugin.cli",
        "get-domainbed",
        "--source",
        str(source.folder),
        "--commit",
        source.old,
    ]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache.parent.parent)}
    runs = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for run in runs:
        _, errors = run.communicate(timeout=60)
        assert (run.returncode, errors) == (0, "")
    assert git(cache, "rev-parse", "HEAD") == source.old
    assert git(cache, "status", "--porcelain") == ""
    assert os.listdir(cache.parent) == ["DomainBed"]


def test_a_checkout_that_appears_while_we_clone_is_kept(source, tmp_path, cache):
    """The other run is a git of ours: it makes the checkout in the cache, then does what it was asked for."""
    git(tmp_path, "clone", "--quiet", str(source.folder), str(tmp_path / "other"))
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(
        f"#!/bin/sh\n[ -e '{cache}' ] || cp -r '{tmp_path / 'other'}' '{cache}'\nexec '{shutil.which('git')}' \"$@\"\n"
    )
    fake.chmod(0o755)
    (tmp_path / "other" / "mine").write_text("here first")
    done = get_domainbed(
        cache, "--source", source.folder, "--commit", source.new, PATH=f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert done.returncode == 0, done.stderr
    assert (cache / "mine").read_text() == "here first"
    assert os.listdir(cache.parent) == ["DomainBed"]


# --- a second time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["new", "side"])
def test_brings_a_clean_outdated_checkout_to_the_commit(source, tmp_path, cache, target):
    git(tmp_path, "clone", "--quiet", "--no-local", "--single-branch", str(source.folder), str(tmp_path / "fork"))
    git(tmp_path / "fork", "reset", "--quiet", "--hard", source.old)
    git(tmp_path / "fork", "reflog", "expire", "--expire=now", "--all")
    get_domainbed(cache, "--source", (tmp_path / "fork").as_uri(), "--commit", source.old)
    wanted = getattr(source, target)
    done = get_domainbed(cache, "--source", "../source", "--commit", wanted[:10], cwd=_beside(source.folder, tmp_path))
    assert done.returncode == 0, done.stderr
    assert state(cache)["head"] == wanted
    assert git(cache, "status", "--porcelain") == ""


def _beside(folder: Path, tmp_path: Path) -> Path:
    """A folder from which ``../source`` leads to ``folder``."""
    (tmp_path / "source").symlink_to(folder)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_brings_a_checkout_to_a_commit_that_only_the_head_of_the_source_holds(source, tmp_path, cache):
    get_domainbed(cache, "--source", source.folder, "--commit", source.old)
    git(tmp_path, "clone", "--quiet", str(source.folder), str(tmp_path / "fork"))
    git(tmp_path / "fork", "checkout", "--quiet", "--detach")
    detached = commit(tmp_path / "fork", "VERSION = 3\n")
    assert get_domainbed(cache, "--source", tmp_path / "fork", "--commit", detached).returncode == 0
    assert git(cache, "rev-parse", "HEAD") == detached


def test_does_nothing_offline_when_the_commit_is_there_already(source, cache):
    get_domainbed(cache, "--source", source.folder, "--commit", source.old)
    before = state(cache)
    done = get_domainbed(cache, "--source", "file:///nonexistent", "--commit", source.old)
    assert done.returncode == 0, done.stderr
    assert state(cache) == before


def edit(folder: Path) -> None:
    (folder / "domainbed" / "__init__.py").write_text("MINE = 1\n")


def stage(folder: Path) -> None:
    edit(folder)
    git(folder, "add", "-A")


def delete(folder: Path) -> None:
    (folder / "domainbed" / "__init__.py").unlink()


def commit_without_a_branch(folder: Path) -> None:
    commit(folder, "MINE = 1\n")


@pytest.mark.parametrize("modify", [edit, stage, delete, commit_without_a_branch])
def test_never_touches_a_modified_checkout(source, cache, modify):
    get_domainbed(cache, "--source", source.folder, "--commit", source.old)
    modify(cache)
    before = state(cache)
    done = get_domainbed(cache, "--source", source.folder, "--commit", source.new)
    assert_refused(done, str(cache), "changes of yours", f"--commit {before['head'][:12]}")
    assert state(cache) == before

    done = get_domainbed(cache, "--source", source.folder, "--commit", before["head"])  # as the message says
    assert done.returncode == 0, done.stderr
    assert "with changes of yours" in done.stdout
    assert state(cache) == before


def test_commits_on_a_branch_are_safe_and_the_checkout_moves_on(source, cache):
    get_domainbed(cache, "--source", source.folder, "--commit", source.old)
    git(cache, "checkout", "--quiet", "-b", "mine")
    mine = commit(cache, "MINE = 1\n")
    assert get_domainbed(cache, "--source", source.folder, "--commit", source.new).returncode == 0
    assert git(cache, "rev-parse", "HEAD", "mine").split() == [source.new, mine]


def test_files_of_the_user_that_git_does_not_know_are_left_alone(source, cache):
    get_domainbed(cache, "--source", source.folder, "--commit", source.old)
    (cache / "train_output").write_text("results")
    assert get_domainbed(cache, "--source", source.folder, "--commit", source.new).returncode == 0
    assert (cache / "train_output").read_text() == "results"


# --- what goes wrong: one line, exit status 2, nothing left behind -------------------------------------------------


@pytest.mark.parametrize(
    "name", ["0" * 40, "abcdef1", "main", "HEAD", "-h", "--all", "", "side~1", "abc", "deadbeef00000000" * 3]
)
def test_a_wrong_commit_names_the_tested_one(source, cache, name):
    done = get_domainbed(cache, "--source", source.folder, f"--commit={name}")
    assert_refused(done, repr(name), COMMIT)
    assert not cache.exists()
    assert not cache.parent.exists() or os.listdir(cache.parent) == []


def test_a_branch_that_looks_like_a_commit_is_not_taken_for_one(source, tmp_path, cache):
    git(tmp_path, "clone", "--quiet", str(source.folder), str(tmp_path / "fork"))
    git(tmp_path / "fork", "checkout", "--quiet", "-b", "decade")
    assert_refused(get_domainbed(cache, "--source", tmp_path / "fork", "--commit", "decade"), "'decade'", COMMIT)


@pytest.mark.parametrize("exists", [False, True], ids=["first time", "second time"])
def test_a_source_that_is_not_domainbed_is_refused_before_anything_changes(source, cache, exists):
    if exists:
        get_domainbed(cache, "--source", source.folder, "--commit", source.old)
    before = state(cache) if exists else None
    done = get_domainbed(cache, "--source", source.folder, "--commit", source.foreign)
    assert_refused(done, str(source.folder), "it is not DomainBed", "https://github.com/facebookresearch/DomainBed")
    assert (state(cache) if cache.exists() else None) == before


UNREACHABLE = [
    "file:///nonexistent",
    "/nonexistent",
    "https://127.0.0.1:9/x",
    "ssh://127.0.0.1:9/x",
    "",
    "--upload-pack=touch injected",
]


@pytest.mark.parametrize("exists", [False, True], ids=["first time", "second time"])
@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_source_that_cannot_be_read_is_one_line_and_no_option_of_git(source, tmp_path, cache, name, exists):
    if exists:
        get_domainbed(cache, "--source", source.folder, "--commit", source.old)
    before = state(cache) if exists else None
    done = get_domainbed(
        cache, f"--source={name}", "--commit", source.new, cwd=tmp_path, GIT_SSH_COMMAND="ssh -oBatchMode=yes"
    )
    assert_refused(
        done, name, "stays at" if exists else "without network pass --source", *([] if exists else ["DOMAINBED_HOME"])
    )
    assert not list(tmp_path.rglob("injected"))
    assert (state(cache) if cache.exists() else None) == before


def empty_folder(folder: Path) -> None:
    folder.mkdir(parents=True)


def a_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("")


def dangling_link(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.symlink_to("nowhere")


def broken_git_inside_another_repository(folder: Path) -> None:
    (folder / ".git").mkdir(parents=True)
    outer = folder.parent.parent
    git(outer, "init", "--quiet")
    git(outer, "commit", "--quiet", "--allow-empty", "-m", "somebody's home folder")


@pytest.mark.parametrize("make", [empty_folder, a_file, dangling_link, broken_git_inside_another_repository])
def test_a_folder_that_is_no_checkout_is_left_alone(source, cache, make):
    make(cache)
    assert_refused(get_domainbed(cache, "--source", source.folder, "--commit", source.new), str(cache), "move it away")
    assert not (cache / "domainbed").exists()


def test_a_cache_that_cannot_be_written_says_which_variable_moves_it(source, tmp_path):
    (tmp_path / "file").write_text("")
    done = get_domainbed(tmp_path / "file" / "cim_plugin" / "DomainBed", "--source", source.folder)
    assert_refused(done, str(tmp_path / "file" / "cim_plugin"), "XDG_CACHE_HOME")


def test_without_git_the_line_says_what_to_do(source, tmp_path, cache):
    done = get_domainbed(cache, "--source", source.folder, PATH=str(tmp_path))
    assert_refused(done, "git is not installed", "DOMAINBED_HOME")


# --- what is around us ---------------------------------------------------------------------------------------------

#: git's own list of the variables that say which repository is meant, without those that only configure
REPOSITORY_VARIABLES = [
    name
    for name in (
        subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True).stdout.split()
        if shutil.which("git")
        else []
    )
    if not name.startswith("GIT_CONFIG")
]


@pytest.mark.parametrize("name", [*REPOSITORY_VARIABLES, "GIT_NAMESPACE"])
@pytest.mark.slow
def test_variables_of_a_git_hook_around_us_do_not_leak_in(source, tmp_path, cache, name):
    git(tmp_path, "init", "--quiet", "victim")
    victim = tmp_path / "victim"
    git(victim, "commit", "--quiet", "--allow-empty", "-m", "theirs")
    before = state(victim), sorted(map(str, victim.rglob("*")))
    value = str(victim / ".git" if name in {"GIT_DIR", "GIT_COMMON_DIR"} else victim / "leak")
    for wanted in (source.old, source.new):
        done = get_domainbed(cache, "--source", source.folder, "--commit", wanted, **{name: value})
        assert done.returncode == 0, done.stderr
        assert state(cache)["head"] == wanted
    assert (state(victim), sorted(map(str, victim.rglob("*")))) == before


def test_hooks_of_the_repository_and_of_the_user_do_not_run(source, tmp_path, cache):
    hook = tmp_path / "templates" / "hooks" / "post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path / 'ran'}'\n")
    hook.chmod(0o755)
    done = get_domainbed(
        cache, "--source", source.folder, "--commit", source.old, GIT_TEMPLATE_DIR=str(hook.parent.parent)
    )
    assert done.returncode == 0, done.stderr
    assert (cache / ".git" / "hooks" / "post-checkout").exists()
    assert not (tmp_path / "ran").exists()
