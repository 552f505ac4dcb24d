"""The command lines ``cim-plugin``, ``python -m cim_plugin.domainbed`` and ``scripts/bench``, in fresh processes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
from interpreters import HERE, SMALL_HOST, run_python

import cim_plugin
from cim_plugin.cli import COMMANDS

HEAVY = {"torch", "numpy", "sklearn"}

#: what runs -> what it needs to import, in a process that reports which heavy packages came along
LIGHT = {
    "starting Python": "pass",
    "import cim_plugin": "import cim_plugin",
    "import cim_plugin.autoload": "import cim_plugin.autoload",
    "cim-plugin --help": "from cim_plugin.cli import main; main(['--help'])",
    "cim-plugin get-domainbed --help": "from cim_plugin.cli import main; main(['get-domainbed', '--help'])",
    "python -m cim_plugin.domainbed --help": "import sys; sys.argv[1:] = ['--help']; from cim_plugin.domainbed import "
    "main; main()",
}


@pytest.mark.parametrize("code", LIGHT.values(), ids=LIGHT)
def test_needs_no_heavy_package(code):
    report = f"import atexit, sys; atexit.register(lambda: print('loaded:', {HEAVY!r} & sys.modules.keys()))\n"
    done = run_python("-c", report + code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: set()"


@pytest.mark.parametrize("words", [["cim_plugin.cli", "--help"], ["cim_plugin", "-h"]])
def test_help_lists_every_command(words):
    done = run_python("-m", *words)
    assert (done.returncode, done.stderr) == (0, "")
    for name, (_, what) in COMMANDS.items():
        assert name in done.stdout
        assert " ".join(what.split()) in " ".join(done.stdout.split())


ACTIONS = [f"data {action}" for action in ("demo", "waterbirds", "celebA", "vlcs", "check")] + [
    f"leaderboard {action}" for action in ("run", "pack", "check")
]


@pytest.mark.parametrize("name", [*COMMANDS, *ACTIONS])
def test_every_command_explains_itself(name):
    done = run_python("-m", "cim_plugin.cli", *name.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"cim-plugin {name}" in done.stdout


def test_version():
    done = run_python("-m", "cim_plugin.cli", "--version")
    assert (done.returncode, done.stdout) == (0, f"cim-plugin {cim_plugin.__version__}\n")


@pytest.mark.parametrize(
    "words",
    [[], ["nonsense"], ["--nonsense"], ["get-domainbed", "--nonsense"], ["get-domainbed", "extra"]],
    ids=" ".join,
)
def test_a_wrong_word_is_exit_status_2_and_no_traceback(words):
    done = run_python("-m", "cim_plugin.cli", *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("cim-plugin")
    assert "COMMAND" in done.stderr or words[-1] in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_one_line_and_exit_status_130_and_leaves_nothing(tmp_path):
    """The key is pressed while git clones: here git itself presses it."""
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text("#!/bin/sh\nkill -INT $PPID\nexec sleep 60\n")
    git.chmod(0o755)
    listen = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a background job ignores the key
    )
    code = f"{listen}; from cim_plugin.cli import main; raise SystemExit(main(['get-domainbed']))"
    done = run_python(
        "-c", code, XDG_CACHE_HOME=str(tmp_path / "cache"), PATH=f"{git.parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert (done.returncode, done.stderr) == (130, "cim-plugin get-domainbed: stopped\n")
    assert os.listdir(tmp_path / "cache" / "cim_plugin") == []


# --- python -m cim_plugin.domainbed: the way in without the autoload file -------------------------------------------


def fallback(*words: str, **environment: str | None) -> subprocess.CompletedProcess:
    return run_python(
        "-m",
        "cim_plugin.domainbed",
        *words,
        CIM_PLUGIN_AUTOLOAD="0",
        DOMAINBED_HOME=None,
        cwd=environment.pop("cwd", None),
        **environment,
    )


@pytest.mark.slow
def test_fallback_trains_our_algorithm_with_the_autoload_off(tmp_path):
    done = fallback("train", "--algorithm", "CIM", "--steps", "1", cwd=tmp_path, PYTHONPATH=str(SMALL_HOST))
    assert done.returncode == 0, done.stderr
    assert '"L_con"' in done.stdout


@pytest.mark.slow
def test_fallback_passes_the_hosts_help_on(tmp_path):
    done = fallback("train", "--help", cwd=tmp_path, PYTHONPATH=str(SMALL_HOST))
    assert done.returncode == 0, done.stderr
    assert "--algorithm" in done.stdout


@pytest.mark.parametrize("words, status", [([], 2), (["nonsense"], 2), (["--help"], 0)])
def test_fallback_says_in_one_line_what_it_runs(words, status):
    done = fallback(*words)
    assert done.returncode == status
    line = done.stderr if status else done.stdout
    assert line.count("\n") == 1
    assert "{train,sweep,collect_results,list_top_hparams}" in line


@pytest.mark.parametrize("folder", [None, "domainbed"], ids=["nothing", "a folder that only has the name"])
def test_fallback_without_a_host_says_in_one_line_how_to_get_it(tmp_path, folder):
    (tmp_path / (folder or "other")).mkdir()
    done = fallback("train", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "cim-plugin get-domainbed" in done.stderr and "DOMAINBED_HOME" in done.stderr


# --- scripts/bench ---------------------------------------------------------------------------------------------------


def bench(*words: str) -> subprocess.CompletedProcess:
    return run_python("-m", "scripts.bench", *words, cwd=HERE.parent)


@pytest.mark.slow
def test_bench_startup_prints_the_machine_and_a_row_per_comparison():
    done = bench("startup", "--pairs", "2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert f"Python {platform.python_version()}" in lines[0] and "cores" in lines[0] and "torch" in lines[0]
    assert [line.partition(":")[0] for line in lines[3:]] == [
        "this environment",
        "empty environment",
        "empty environment",
        "target",
    ]


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["startup", "--pairs", "1"], ["startup", "--pairs", "many"]], ids=" ".join
)
@pytest.mark.slow
def test_bench_refuses_wrong_words(words):
    done = bench(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and done.stderr.splitlines()[-1].startswith("scripts/bench")


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    """More lines than a pipe holds, of which one is read."""
    code = """
import sys, types
from cim_plugin import cli
command = types.ModuleType("chatty")
command.add_arguments = lambda parser: None
command.run = lambda args: [print("line", number) for number in range(100_000)] and 0
sys.modules["chatty"] = command
cli.COMMANDS["chatty"] = ("chatty", "")
sys.exit(cli.main(["chatty"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


# --- tab completion --------------------------------------------------------------------------------------------------


def completed(*words: str) -> list[str]:
    """What bash offers for the last of the words, by the script that the command prints."""
    script = run_python("-m", "cim_plugin.cli", "--print-completion", "bash")
    assert (script.returncode, script.stderr) == (0, "")
    code = f"""{script.stdout}
COMP_WORDS=(cim-plugin {" ".join(words)}); COMP_CWORD={len(words)}; COMP_TYPE=9
function=$(complete -p cim-plugin | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function; echo "${{COMPREPLY[@]}}"
"""
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    "words, offered",
    [(["tr"], ["train"]), (["train", "--cim_pai"], ["--cim_pairs"]), (["leaderboard", "pa"], ["pack"])],
    ids=lambda words: " ".join(words),
)
def test_tab_completes_commands_and_flags(words, offered):
    pytest.importorskip("shtab", reason="completion needs shtab")
    assert completed(*words) == offered


@pytest.mark.parametrize(
    "missing, said", [(True, "pip install 'cim_plugin[completion]'"), (False, "'ksh' is no shell")]
)
def test_completion_without_shtab_or_shell_is_one_line(missing, said):
    if not missing:
        pytest.importorskip("shtab", reason="completion needs shtab")
    hide = "sys.modules['shtab'] = None; " if missing else ""
    code = f"import sys; {hide}from cim_plugin.cli import main; sys.exit(main(['--print-completion', 'ksh']))"
    done = run_python("-c", code)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr
