"""Every command, whatever stands where its files belong: one line and status 2, and no waiting for a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from interpreters import HERE, run_python

from cim_plugin import autoload, cli
from cim_plugin.errors import exit_status

sys.path.append(str(HERE / "report"))
from run_folders import domainbed_records, write_domainbed, write_wilds  # noqa: E402


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """A function (words) -> the one line of a command, in a folder of its own, where nothing is made."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        before = sorted(os.listdir())
        try:
            status = cli.main(list(words))
        except SystemExit as end:
            status = end.code
        (line,) = capsys.readouterr().err.splitlines()
        assert status == 2 and line.startswith("cim-plugin") and len(line) < 1200
        assert sorted(os.listdir()) == before
        return line

    return run


MAKE = {
    "a folder": os.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda path: os.symlink("/dev/zero", path),
    "a link to nothing": lambda path: os.symlink("nowhere", path),
    "brackets": lambda path: Path(path).write_text("[" * 100_000),
    "a long number": lambda path: Path(path).write_text('{"a": ' + "1" * 5000 + "}"),
    "latin-1": lambda path: Path(path).write_bytes(b'{"a": "\xe4"}'),
    "zeros": lambda path: Path(path).write_bytes(bytes(1000)),
    "a list": lambda path: Path(path).write_text("[]"),
    "a cell of a megabyte": lambda path: Path(path).write_text("epoch,acc_avg\n0," + "1" * 1_000_000),
}


@pytest.mark.parametrize("what", MAKE)
@pytest.mark.parametrize(
    "words", ["compare run", "show run", "leaderboard pack run -o x.tar.gz", "export run --format safetensors"]
)
def test_in_the_place_of_the_results(what, words, refused, tmp_path):
    (tmp_path / "run").mkdir()
    MAKE[what]("run/results.json")
    assert "run" in refused(*words.split())


@pytest.mark.parametrize("what", MAKE)
def test_in_the_place_of_domainbed_s_results(what, refused, tmp_path):
    (tmp_path / "run").mkdir()
    MAKE[what]("run/results.jsonl")
    assert "no run in run" in refused("compare", "run")


@pytest.mark.parametrize("what", MAKE)
@pytest.mark.parametrize("action, table", [("waterbirds", "metadata.csv"), ("celebA", "list_attr_celeba.csv")])
def test_in_the_place_of_a_table_to_convert(what, action, table, refused, tmp_path):
    (tmp_path / "from").mkdir()
    MAKE[what](f"from/{table}")
    if action == "celebA":
        Path("from/list_eval_partition.csv").touch()
    refused("data", action, "--from", "from", "--root", "root")


@pytest.mark.parametrize("what", ["a folder", "a pipe", "a device", "brackets", "latin-1", "zeros"])
def test_in_the_place_of_an_archive(what, refused, tmp_path):
    MAKE[what]("archive")
    refused("data", "waterbirds", "--from", "archive", "--root", "root")
    if what not in ("a folder", "zeros"):  # which is an archive of nothing
        refused("leaderboard", "check", "archive")


@pytest.mark.parametrize("what", [what for what in MAKE if what != "a link to nothing"])
def test_in_the_place_of_a_manifest(what, refused, tmp_path):
    (tmp_path / "root" / "waterbirds_v1.0").mkdir(parents=True)
    MAKE[what]("root/waterbirds_v1.0/MANIFEST.sha256")
    assert "waterbirds_v1.0" in refused("data", "waterbirds", "--from", "root", "--root", "root")


@pytest.mark.parametrize("what", ["a folder", "a pipe", "a device"])
@pytest.mark.parametrize("words", ["compare runs -o x.html", "leaderboard pack runs -o x.tar.gz"])
def test_in_the_place_of_what_is_written(what, words, refused, tmp_path):
    write_wilds(tmp_path / "runs" / "a")
    MAKE[what](words.split()[-1])
    refused(*words.split())


@pytest.mark.parametrize("root", ["file", "file/below", "/dev/null"])
@pytest.mark.parametrize("words", ["data demo --root {}", "data waterbirds --from . --root {}"])
def test_a_root_that_is_a_file(root, words, refused, tmp_path):
    (tmp_path / "file").touch()
    refused(*words.format(root).split())


def test_val_eval_with_a_cell_of_a_megabyte_is_left_out_of_the_plots(tmp_path, capsys):
    write_wilds(tmp_path / "runs" / "a")
    MAKE["a cell of a megabyte"](tmp_path / "runs" / "a" / "val_eval.csv")
    assert cli.main(["compare", str(tmp_path / "runs"), "--plots", str(tmp_path / "plots")]) == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        *(
            f"show run --{flag}={text}"
            for flag in ("images", "per_group", "seed")
            for text in ("x", "-1", "9" * 20, "٣")
        ),
        *(f"data demo --seed={text}" for text in ("x", "-1", "9" * 20, "1e400", "nan", "٣", "")),
        "get-domainbed --commit x",
        "compare",
        "nonsense",
        "",
    ],
)
def test_numbers_and_words(words, refused):
    refused(*words.split(" ") if words else [])


# --- the disk and the environment -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, line",
    [
        (OSError(28, "No space left on device", "a/b"), "x: error: a/b: No space left on device"),
        (PermissionError(13, "Permission denied", b"a"), "x: error: a: Permission denied"),
        (FileNotFoundError("No usable temporary directory"), "x: error: No usable temporary directory"),
        (DeprecationWarning("old"), "x: error: DeprecationWarning: old (an error because of -W or PYTHONWARNINGS)"),
    ],
)
def test_what_the_disk_refuses_anywhere(error, line, capfd):
    def command():
        raise error

    kept = os.dup(1)
    try:
        assert exit_status("x", command) == 2
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert capfd.readouterr().err.startswith(line)


def test_standard_output_that_is_full():
    done = run_python("-c", "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); from cim_plugin.cli import "
                      "main; sys.exit(main(['data', 'check', '--root', 'nowhere']))", cwd=HERE.parent)  # fmt: skip
    assert done.returncode == 2 and done.stderr.splitlines()[0].startswith("cim-plugin data: error: No space left")
    assert len(done.stderr.splitlines()) == 1


#: (HOME, XDG_CACHE_HOME) -> our folder; None: unset. "~" is what the table of users says
CACHES = [
    ("/home/x", None, "/home/x/.cache/cim_plugin"),
    ("/home/x", "", "/home/x/.cache/cim_plugin"),
    ("/home/x", "cache", "/home/x/.cache/cim_plugin"),
    ("/home/x", "../cache", "/home/x/.cache/cim_plugin"),
    ("/home/x", "/var/c", "/var/c/cim_plugin"),
    (None, "/var/c", "/var/c/cim_plugin"),
    (None, None, "~/.cache/cim_plugin"),
    ("", "", "~/.cache/cim_plugin"),
    ("x", "x", "~/.cache/cim_plugin"),
]


@pytest.mark.parametrize("home, cache, expected", CACHES)
def test_the_cache(home, cache, expected, monkeypatch):
    import pwd

    for name, value in (("HOME", home), ("XDG_CACHE_HOME", cache)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert autoload.user_cache() == expected.replace("~", pwd.getpwuid(os.getuid()).pw_dir)


def test_a_user_in_no_table_without_a_home(monkeypatch):
    import pwd

    def unknown(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert autoload.user_cache() == "/.cache/cim_plugin"


PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"PYTHONOPTIMIZE": "2"},
        {"COLUMNS": "1"},
        {"COLUMNS": "wide", "TERM": "dumb", "OMP_NUM_THREADS": "many", "TMPDIR": "nowhere", "HOME": "", "LC_ALL": "xx"},
        {"PYTHONWARNINGS": "error"},
    ],
    ids=lambda variables: "-".join(variables),
)
def test_help_in_any_environment(variables):
    words = [sys.executable, "-m", "cim_plugin.cli", "train", "--help-all"]
    done = subprocess.run(words, cwd=HERE.parent, env={**os.environ, **PLAIN, **variables}, capture_output=True)
    assert done.returncode == 0 and b"--cim_lambda" in done.stdout and done.stderr == b""


@pytest.mark.slow
def test_umlauts_in_a_path_of_another_locale(tmp_path):
    folder = os.fsencode(tmp_path) + "/Läufe".encode()
    write_wilds(Path(os.fsdecode(folder)) / "a")
    write_domainbed(Path(os.fsdecode(folder)) / "b", domainbed_records([0], [[(0.5, 0.5)] * 2] * 2))
    for words in (
        ["compare", folder],
        ["compare", folder, "-o", folder + b"/x.html"],
        ["data", "check", "--root", folder],
    ):
        done = run_python("-m", "cim_plugin.cli", *words, cwd=HERE.parent, LC_ALL="C", **PLAIN)
        assert "Traceback" not in done.stderr and done.returncode == (1 if words[0] == "data" else 0), done.stderr
    done = run_python("-m", "cim_plugin.cli", "show", folder + b"/a", cwd=HERE.parent, LC_ALL="C", **PLAIN)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "Läufe" in done.stderr


#: script -> command lines whose numbers or words are wrong
SCRIPTS = {
    "demo": ["--seeds 0", "--epochs -1", "--nope", "--seeds ٣", "--epochs 99999999999999999999"],
    "bench": ["", "nope", "loader --images 0", "accuracy --seeds 0", "startup --pairs 1"],
    "study": ["--seeds 0", "--steps -1", "--search 0", "--jobs 0", "--rows nope"],
    "reproduce": ["", "nope", "vlcs --n_hparams 0", "vlcs --steps 0", "waterbirds --seeds -1", "celebA --seeds nan"],
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(script, tmp_path):
    code = (
        "import runpy, sys\n"
        "name, *lines = sys.argv[1:]\n"
        "for line in lines:\n"
        "    sys.argv = [name, *line.split()]\n"
        "    try:\n"
        "        runpy.run_module(name, run_name='__main__', alter_sys=False)\n"
        "    except SystemExit as end:\n"
        "        print(end.code)\n"
    )
    name = f"scripts.{script}"
    done = run_python("-c", code, name, *SCRIPTS[script], cwd=tmp_path, PYTHONPATH=str(HERE.parent))
    n = len(SCRIPTS[script])
    assert done.stdout.split() == ["2"] * n and len(done.stderr.splitlines()) == n, done.stderr
    assert all("error: " in line for line in done.stderr.splitlines()) and os.listdir(tmp_path) == []
