"""The traps of a given command line: how it is understood, and what it would run into when it is started."""

from __future__ import annotations

import os
import shlex
import sys

import pytest
from looking import look, look_only

from cim_plugin import autoload
from cim_plugin.doctor import traps

BED = ["--algorithm", "CIM"]
#: command line -> (kind, program, arguments, assignments); None where it is not known
UNDERSTOOD = {
    "cim-plugin train -d waterbirds": ("train", "cim-plugin train", ["-d", "waterbirds"], {}),
    "/opt/x/bin/cim-plugin train": ("train", "cim-plugin train", [], {}),
    "python -m cim_plugin.wilds_runner -d celebA": ("train", "cim_plugin.wilds_runner", ["-d", "celebA"], {}),
    "torchrun --nproc_per_node 2 -m cim_plugin.cli train -d celebA": (
        "train",
        "cim_plugin.cli train",
        ["-d", "celebA"],
        {},
    ),
    "python3.11 -m domainbed.scripts.train --algorithm CIM": ("domainbed train", "domainbed.scripts.train", BED, {}),
    "python -W error -m domainbed.scripts.train --algorithm CIM": (
        "domainbed train",
        "domainbed.scripts.train",
        BED,
        {},
    ),
    "A=1 B='x y' python -m cim_plugin.domainbed train --algorithm CIM": (
        "domainbed train",
        "cim_plugin.domainbed train",
        BED,
        {"A": "1", "B": "x y"},
    ),
    "python domainbed/scripts/train.py --algorithm CIM": ("domainbed train", "domainbed/scripts/train.py", BED, {}),
    "python -m domainbed.scripts.sweep launch": ("domainbed sweep", "domainbed.scripts.sweep", ["launch"], {}),
    "python -m cim_plugin.domainbed sweep launch": ("domainbed sweep", "cim_plugin.domainbed sweep", ["launch"], {}),
    "python /x/examples/run_expt.py -d waterbirds": ("run_expt", "examples/run_expt.py", ["-d", "waterbirds"], {}),
    "cim-plugin data demo": None,
    "cim-plugin": None,
    "python": None,
    "python -m": None,
    "python -m domainbed.scripts.download": None,
    "python -m cim_plugin.domainbed collect_results": None,
    "python -c 'import domainbed.scripts.train'": None,
    "ls -m domainbed.scripts.train": None,
    "A=1": None,
    "''": None,
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_a_command_line_is_understood_or_not(text):
    expected, found = UNDERSTOOD[text], traps.understand(shlex.split(text))
    assert (found and (found.kind, found.program, found.arguments, found.environment)) == expected


def test_what_is_not_known_is_an_error(environment):
    said = environment.ask("--", "ls", "-l")
    assert said.status == 2 and said.of("command") == [("error", "nothing is known of the command 'ls'")]


def test_words_without_the_two_dashes_are_a_command_too(environment):
    said = environment.ask("cim-plugin", "data", "--root_dir", "x")
    assert said.status == 2 and said.of("command")[0][0] == "error"


@pytest.fixture
def with_autoload(monkeypatch):
    """The autoload is on, whatever made this process."""
    monkeypatch.delenv("CIM_PLUGIN_AUTOLOAD", raising=False)
    monkeypatch.setattr(
        sys, "meta_path", [autoload.FINDER, *(finder for finder in sys.meta_path if finder is not autoload.FINDER)]
    )


RUN_EXPT = f"{sys.executable} examples/run_expt.py -d waterbirds --algorithm"


@pytest.mark.parametrize("algorithm", ["CIM", "CIM_VIB", "VIB", "SCL_E2E", "CIM+groupDRO"])
def test_run_expt_of_a_checkout_knows_our_algorithms(algorithm, with_autoload, only_installed, monkeypatch):
    only_installed(transformers="4.39.3")
    ((level, words),) = look(f"{RUN_EXPT} {algorithm}")
    assert (
        level == "note"
        and words.startswith(f"run_expt.py knows {algorithm} by the autoload")
        and "'cim-plugin train' takes the same flags" in words
    )
    ((level, words),) = look(f"CIM_PLUGIN_AUTOLOAD=0 {RUN_EXPT} {algorithm}")
    assert level == "error" and words.startswith(f"run_expt.py will not know {algorithm}: the autoload is off")
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if finder is not autoload.FINDER])
    assert look(f"{RUN_EXPT} {algorithm}")[0][0] == "error"
    assert look(f"{RUN_EXPT} ERM") == [
        ("note", "only a run_expt.py with one of our algorithms is looked at 'cim-plugin train' takes the same flags")
    ]


@pytest.mark.parametrize(
    "packages, said",
    [
        ({}, "transformers is not installed"),
        ({"transformers": "4.40.0"}, "transformers 4.40.0 is installed, <4.40 is needed"),
    ],
)
def test_run_expt_needs_transformers(packages, said, with_autoload, only_installed):
    only_installed(**packages)
    ((level, words),) = look(f"{RUN_EXPT} CIM")
    assert level == "error" and words.startswith(f"run_expt.py does not start: {said} pip install 'transformers<4.40'")


def test_run_expt_of_another_python(tmp_path, with_autoload, only_installed, monkeypatch):
    only_installed(transformers="4.39.3")
    monkeypatch.setenv("PATH", python(tmp_path / "bin", "/elsewhere", False))
    said = look("python examples/run_expt.py -d waterbirds --algorithm CIM")
    assert said[0][0] == "error" and "does not have the plugin" in said[0][1]


# --- the interpreter --------------------------------------------------------------------------------------------------


def python(folder, prefix: str, has_plugin: bool, status: int = 0):
    """A program of the name that answers as an interpreter elsewhere does."""
    folder.mkdir()
    (folder / "python").write_text(f"#!/bin/sh\necho {prefix}\necho {has_plugin}\necho broken >&2\nexit {status}\n")
    (folder / "python").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    "has_plugin, status, level, words",
    [
        (False, 0, "error", "does not have the plugin"),
        (True, 0, "warning", "has the plugin, too"),
        (True, 1, "error", "does not start (broken)"),
    ],
)
def test_another_python_on_the_path(tmp_path, monkeypatch, has_plugin, status, level, words):
    monkeypatch.setenv("PATH", python(tmp_path / "bin", "/elsewhere", has_plugin, status))
    said = look_only("python -m cim_plugin.wilds_runner -d waterbirds")
    assert [found for found, _ in said] == [level] and words in said[0][1] and sys.executable in said[0][1]
    said = look_only("cim-plugin train -d waterbirds")
    assert said == []


def test_no_python_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look_only("python -m cim_plugin.wilds_runner")[0] == (
        "error",
        f"the command starts 'python', which is not on the PATH start {sys.executable}",
    )


def test_a_sweep_whose_jobs_start_another_python(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", python(tmp_path / "bin", "/elsewhere", False))
    sweep = (
        f"{sys.executable} -m cim_plugin.domainbed sweep launch --data_dir d --output_dir o --algorithms CIM "
        f"--datasets Debug28"
    )
    ((level, words),) = look_only(f"{sweep} --command_launcher local")
    assert level == "error" and "--command_launcher local starts every job" in words and "cim_local" in words
    assert look_only(f"{sweep} --command_launcher cim_local") == []
    assert look_only(f"{sweep} --command_launcher cim_loca")[0] == (
        "error",
        "--command_launcher cim_loca is none of DomainBed's (cim_local, local, multi_gpu, dummy) give "
        "--command_launcher cim_local",
    )
    assert look_only(sweep)[0] == (
        "error",
        "sweep needs --command_launcher give --command_launcher cim_local, which uses the interpreter that runs the "
        "sweep",
    )


#: --algorithms -> those that are started on the first data set, and on the rest
SWEPT = {
    "": (["CIM"], ["CIM"]),
    "--algorithms CIM": (["CIM"], ["CIM"]),
    "--algorithms ERM CIM CORAL VIB CIM": (["ERM", "CIM", "CORAL", "VIB"], ["ERM", "CIM", "VIB"]),
    "--algorithms CIM+CORAL IRM CORAL": (["CIM+CORAL", "IRM", "CORAL"], ["CIM+CORAL", "IRM"]),
    "--algorithms IRM CORAL": (["IRM", "CORAL"], ["IRM"]),
}


@pytest.mark.parametrize("words", SWEPT)
def test_a_sweep_starts_every_algorithm_once_and_ours_on_every_data_set(words):
    sweep = (
        f"python -m cim_plugin.domainbed sweep launch --data_dir d --output_dir o --command_launcher cim_local {words} "
        f"--datasets Debug28 PACS"
    )
    assert traps.trainings(traps.understand(shlex.split(sweep))) == {
        f"{dataset}, {name}: ": ["--dataset", dataset, "--algorithm", name, "--data_dir", "d"]
        for dataset, names in zip(("Debug28", "PACS"), SWEPT[words])
        for name in names
    }


# --- DomainBed --------------------------------------------------------------------------------------------------------


def test_the_autoload_off_for_the_hosts_own_script(monkeypatch):
    train = "-m domainbed.scripts.train --algorithm"
    ((level, words),) = look_only(f"CIM_PLUGIN_AUTOLOAD=0 {sys.executable} {train} CIM")
    assert level == "error" and "python -m cim_plugin.domainbed train" in words
    assert "will not know CIM+CORAL" in look_only(f"CIM_PLUGIN_AUTOLOAD=0 {sys.executable} {train} CIM+CORAL")[0][1]
    assert look_only(f"CIM_PLUGIN_AUTOLOAD=0 {sys.executable} {train} ERM") == []
    assert look_only(f"CIM_PLUGIN_AUTOLOAD=0 {sys.executable} -m cim_plugin.domainbed train --algorithm CIM") == []
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if finder is not autoload.FINDER])
    assert look_only(f"{sys.executable} {train} CIM")[0][0] == "error"


def test_an_output_folder_that_holds_a_run_or_is_a_file(tmp_path):
    (tmp_path / "results.jsonl").touch()
    train = f"{sys.executable} -m cim_plugin.domainbed train --algorithm CIM --output_dir {tmp_path}"
    ((level, words),) = look_only(train)
    assert level == "warning" and "DomainBed appends to" in words
    assert look_only(f"{train}/results.jsonl")[0] == (
        "error",
        f"--output_dir {tmp_path}/results.jsonl is a file choose another folder",
    )


def test_no_domainbed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DOMAINBED_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ((level, words),) = look(f"{sys.executable} -m cim_plugin.domainbed train --algorithm CIM")
    assert level == "error" and "cim-plugin get-domainbed" in words
