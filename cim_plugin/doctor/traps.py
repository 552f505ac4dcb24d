"""What a given command line would run into. It is really started, up to its first step: the hosts and this plugin say
what is wrong themselves.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple

from .. import autoload, catalog
from ..hosts.wilds_examples import adapter
from .findings import ERROR, NOTE, OK, WARNING, Finding, Surroundings, child, last_words
from .places import SAME_FLAGS, find_host, without_transformers, writable
from .reporting import DOMAINBED, OUTPUT, TRAIN, read_report

SWEEP, EXAMPLES = "domainbed sweep", "run_expt"
#: what is run by python -m, or the end of a script's path -> (kind of command, words that belong to the program's name)
PROGRAMS = {
    "domainbed.scripts.train": (DOMAINBED, []),
    "domainbed.scripts.sweep": (SWEEP, []),
    "cim_plugin.domainbed train": (DOMAINBED, ["train"]),
    "cim_plugin.domainbed sweep": (SWEEP, ["sweep"]),
    "cim_plugin.wilds_runner": (TRAIN, []),
    "cim_plugin.cli train": (TRAIN, ["train"]),
    "domainbed/scripts/train.py": (DOMAINBED, []),
    "domainbed/scripts/sweep.py": (SWEEP, []),
    "examples/run_expt.py": (EXAMPLES, []),
}
KNOWN = "'cim-plugin train ...', 'python -m domainbed.scripts.train ...' or '... sweep launch ...'"


class Command(NamedTuple):
    """A command line, understood."""

    kind: str
    python: str | None  #: the word that names the interpreter, None for 'cim-plugin'
    program: str  #: the key of PROGRAMS, or 'cim-plugin train'
    arguments: list[str]
    environment: dict[str, str]  #: the assignments before it


def command(surroundings: Surroundings) -> Iterator[Finding]:
    if not surroundings.words:
        return
    understood = understand(surroundings.words)
    if understood is None:
        yield Finding(
            ERROR, f"nothing is known of the command {surroundings.words[0]!r}", f"give a command line of {KNOWN}"
        )
        return
    runs = True
    for finding in itertools.chain(LOOKS[understood.kind](understood), _start(understood)):
        runs = runs and finding.level != ERROR
        if runs or finding.level != OK:  # "it starts" is not said beside what will stop it
            yield finding


def understand(words: list[str]) -> Command | None:
    """The parts of a command line; None where it is not one of ``PROGRAMS``."""
    assignments = []
    for word in words:
        if not re.match(r"[A-Za-z_]\w*=", word):
            break
        assignments.append(word.partition("=")[::2])
    first, *rest = words[len(assignments) :] or [""]
    if os.path.basename(first) == "cim-plugin":
        return Command(TRAIN, None, "cim-plugin train", rest[1:], dict(assignments)) if rest[:1] == ["train"] else None
    if not re.match(r"(python|torchrun)", os.path.basename(first)):
        return None
    for position, word in enumerate(rest):
        module = rest[position - 1] == "-m" if position else False
        for name, (kind, more) in PROGRAMS.items():
            target = name.split()[0]
            if (
                word == target if module else target.endswith(".py") and os.path.abspath(word).endswith("/" + target)
            ) and rest[position + 1 : position + 1 + len(more)] == more:
                return Command(kind, first, name, rest[position + 1 + len(more) :], dict(assignments))
    return None


# --- the interpreter -------------------------------------------------------------------------------------------------


def _interpreter(word: str, why: str, fix: str) -> Iterator[Finding]:
    """Whether ``word`` starts the environment that this is."""
    path = shutil.which(word)
    if path is None:
        yield Finding(ERROR, f"{why} {word!r}, which is not on the PATH", fix)
        return
    if "python" not in os.path.basename(word):
        return
    done = child(
        [path, "-c", "import importlib.util as u, sys; print(sys.prefix); print(u.find_spec('cim_plugin') is not None)"]
    )
    prefix, _, has_plugin = done.stdout.strip().partition("\n")
    if done.returncode:
        yield Finding(ERROR, f"{why} {path}, which does not start ({last_words(done)})", fix)
    elif os.path.realpath(prefix) != os.path.realpath(sys.prefix):
        known = "has the plugin, too" if has_plugin == "True" else "does not have the plugin"
        yield Finding(
            WARNING if has_plugin == "True" else ERROR,
            f"{why} {path}, which is not the interpreter that runs this ({sys.executable}) and {known}",
            fix,
        )


# --- the kinds of command ---------------------------------------------------------------------------------------------


def _python(understood: Command) -> Iterator[Finding]:
    if understood.python is not None:
        yield from _interpreter(understood.python, "the command starts", f"start {sys.executable}")


def _domainbed(understood: Command) -> Iterator[Finding]:
    options, _ = _parser("--output_dir", "--algorithm").parse_known_args(understood.arguments)
    yield from _python(understood)
    yield from _autoload(understood, [options.algorithm])
    folder = options.output_dir or "train_output"
    if os.path.exists(os.path.join(folder, "results.jsonl")):
        yield Finding(
            WARNING,
            f"--output_dir {folder} holds results of an earlier run, which DomainBed appends to",
            "choose another folder, or move the old one away",
        )
    refused = writable(folder, "--output_dir")
    if refused:
        yield refused


#: DomainBed's and ours
LAUNCHERS = ("cim_local", "local", "multi_gpu", "dummy")
SHARED = ("--data_dir", "--hparams", "--holdout_fraction", "--task")  #: flags that a sweep passes on to its jobs


def _sweep(understood: Command) -> Iterator[Finding]:
    options = _sweep_options(understood)
    yield from _python(understood)
    yield from _autoload(understood, options.algorithms or list(catalog.ALGORITHMS))
    if options.command_launcher is None:
        yield Finding(
            ERROR,
            "sweep needs --command_launcher",
            "give --command_launcher cim_local, which uses the interpreter that runs the sweep",
        )
    elif options.command_launcher not in LAUNCHERS:
        yield Finding(
            ERROR,
            f"--command_launcher {options.command_launcher} is none of DomainBed's ({', '.join(LAUNCHERS)})",
            "give --command_launcher cim_local",
        )
    elif options.command_launcher != "cim_local":
        why = f"--command_launcher {options.command_launcher} starts every job with the bare word"
        yield from _interpreter("python", why, "give --command_launcher cim_local, or activate the environment first")
    if not options.datasets:
        yield Finding(
            NOTE,
            "without --datasets a sweep is over all data sets of DomainBed; none was looked at",
            "name those that you have",
        )


def _sweep_options(understood: Command) -> argparse.Namespace:
    parser = _parser("--command_launcher", *SHARED)
    parser.add_argument("--datasets", nargs="+", default=[])
    parser.add_argument("--algorithms", nargs="+", default=[])
    return parser.parse_known_args(understood.arguments)[0]


def _examples(understood: Command) -> Iterator[Finding]:
    """Whether run_expt.py will know our algorithm, and has what its own imports need; it is not started."""
    name = _parser("--algorithm").parse_known_args(understood.arguments)[0].algorithm
    if name not in adapter.NAMES:
        yield Finding(NOTE, "only a run_expt.py with one of our algorithms is looked at", SAME_FLAGS)
        return
    yield from _python(understood)
    if _autoload_is_off(understood):
        yield Finding(
            ERROR,
            f"run_expt.py will not know {name}: the autoload is off",
            f"leave out CIM_PLUGIN_AUTOLOAD=0, or pip install the plugin again; {SAME_FLAGS}",
        )
    elif missing := without_transformers():
        yield Finding(
            ERROR,
            f"run_expt.py does not start: {missing}",
            f"pip install 'transformers{adapter.TRANSFORMERS}'; {SAME_FLAGS}",
        )
    else:
        yield Finding(
            NOTE, f"run_expt.py knows {name} by the autoload; its flags and data were not looked at", SAME_FLAGS
        )


#: kind of command -> what can be seen without starting it
LOOKS = {TRAIN: _python, DOMAINBED: _domainbed, SWEEP: _sweep, EXAMPLES: _examples}


def _parser(*names: str) -> argparse.ArgumentParser:
    """A few flags of a program that is not ours; whatever else is given is its own business."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for name in names:
        parser.add_argument(name)
    return parser


def _autoload(understood: Command, algorithms: list[str | None]) -> Iterator[Finding]:
    """Whether the host's own script will know our algorithms."""
    ours = [name for name in algorithms if catalog.is_ours(name)]
    if ours and understood.program.startswith("domainbed") and _autoload_is_off(understood):
        script = understood.program.rpartition("scripts.")[2].removesuffix(".py")
        yield Finding(
            ERROR,
            f"DomainBed will not know {ours[0]}: the autoload is off",
            f"start it as 'python -m cim_plugin.domainbed {script} ...'",
        )


def _autoload_is_off(understood: Command) -> bool:
    switch = understood.environment.get("CIM_PLUGIN_AUTOLOAD", os.environ.get("CIM_PLUGIN_AUTOLOAD", "1"))
    return switch == "0" or autoload.FINDER not in sys.meta_path


# --- starting it ------------------------------------------------------------------------------------------------------


def trainings(understood: Command) -> dict[str, list[str]]:
    """What is started of a command: what it is called before findings -> arguments.

    The jobs of a sweep are commands of the train script: all algorithms that are named on the first data set, and on
    the rest ours and one of the others.
    """
    if understood.kind != SWEEP:
        return {} if understood.kind == EXAMPLES else {"": understood.arguments}
    options = _sweep_options(understood)
    passed = [word for flag in SHARED if (value := vars(options)[flag[2:]]) for word in (flag, value)]
    named = list(dict.fromkeys(options.algorithms)) or ["CIM"]
    others = [name for name in named if not catalog.is_ours(name)]
    return {
        f"{dataset}, {algorithm}: ": ["--dataset", dataset, "--algorithm", algorithm, *passed]
        for dataset in options.datasets
        for algorithm in named
        if dataset == options.datasets[0] or algorithm not in others[1:]
    }


def _start(understood: Command) -> Iterator[Finding]:
    kind = TRAIN if understood.kind == TRAIN else DOMAINBED
    missing = kind == DOMAINBED and find_host("domainbed") is None and not understood.environment.get("DOMAINBED_HOME")
    not_found = Finding(
        ERROR, "DomainBed is not found", "cim-plugin get-domainbed fetches it, or set DOMAINBED_HOME to a checkout"
    )
    for name, arguments in trainings(understood).items():
        for finding in [not_found] if missing else _dry_start(kind, arguments, understood.environment):
            yield finding._replace(what=f"{name}{finding.what}")


def _dry_start(kind: str, arguments: list[str], environment: dict[str, str]) -> Iterator[Finding]:
    """What :mod:`.dry_start` says, from a process of its own whose files are thrown away."""
    with tempfile.TemporaryDirectory(prefix="cim-plugin-doctor-") as folder:
        words = [sys.executable, "-m", "cim_plugin.doctor.dry_start", folder, kind, *arguments]
        yield from outcome(folder, child(words, {**environment, "HF_HUB_OFFLINE": "1"}))


def outcome(folder: str | os.PathLike, done: subprocess.CompletedProcess) -> Iterator[Finding]:
    """What a dry start that is over has said, in its folder and at its end."""
    findings, started = read_report(folder)
    errors = Path(folder, OUTPUT, "err.txt")  # DomainBed keeps its standard error there
    if errors.is_file():
        done.stderr += errors.read_text(errors="replace")
    yield from findings
    if started:
        yield Finding(OK, "it starts, and comes to its first step")
    elif not findings or findings[-1].level not in (ERROR, WARNING) or done.returncode:
        said = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
        yield (
            Finding(ERROR, said[-1])
            if said
            else Finding(
                ERROR, f"it stops before its first step: {last_words(done)}", "run it, to read all that it says"
            )
        )
