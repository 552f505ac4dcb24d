"""Bad values for every flag and argument of every command, as the parsers have them."""

from __future__ import annotations

import argparse
import functools
import importlib
import shutil
from typing import Iterator

from cim_plugin import cli

from .judging import ended
from .running import Room
from .sections import Case

DIGITS = "9" * 20
NUMBERS = ("", "0", "-1", DIGITS, "nan", "inf", "1e400", "0.5", "x", "1,2", "१२")
TEXTS = (
    "",
    "{folder}",
    "{folder}/missing/file",
    "nul\\x00",
    "ünï\u202ecode",
    "\x1b[2J",
    "../canary",
    "=1+1",
    "a" * 5000,
)
PAIRS = ("", "x", "=1", "a=", "a=1=2", "num_workers=-1", "num_workers=x", "__class__=1", f"a={DIGITS}", "a=nan")
SLOW = {"--compile"}  #: without a value it is on, and compiling takes a minute
FINDINGS = {"doctor": (1, 2), "data": (1,), "leaderboard": (1,)}  #: statuses of what is printed, not of an error
WORDS = ("", "x", "X" * 5000, "ünï\u202ecode")


def _parsers() -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """(words of the command, its parser) of every command and action."""
    for name, (module, _) in cli.COMMANDS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(module).add_arguments(parser)
        actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not actions:
            yield (name,), parser
        for action in actions:
            for word, inner in action.choices.items():
                yield (name, word), inner


def _values(action: argparse.Action) -> tuple[str, ...]:
    if action.choices is not None:
        return WORDS
    if (action.metavar or "").startswith("KEY=VALUE"):
        return PAIRS
    if isinstance(action.default, bool) or action.const is not None:
        return (*WORDS, "2", "-1")
    if _is_number(action):
        return NUMBERS
    return (*TEXTS, "-1", DIGITS)


def _is_number(action: argparse.Action) -> bool:
    """Whether its type takes "1" and does not leave it a text."""
    try:
        return callable(action.type) and not isinstance(action.type("1"), str)
    except (TypeError, ValueError, argparse.ArgumentTypeError):
        return False


def _bases(material) -> dict[tuple[str, ...], tuple[object, ...]]:
    """The words of a command that works, or that fails early where to work would take long."""
    run = "{folder}/run"
    _, *train = material.words("CIM_VIB", "{folder}/new", "--n_epochs", "1")
    return {
        ("train",): tuple(train),
        ("retrain",): (run, "--method", "afr", "--log_dir", "{folder}/new"),
        ("predict",): (run, material.image),
        ("export",): (run, "--format", "torch-export", "-o", "{folder}/m.pt2"),
        ("compare",): (run,),
        ("show",): (run, "--json"),
        ("data", "demo"): ("--root", "{folder}"),
        ("data", "check"): ("--root", material.root),
        **{("data", name): ("--from", "{folder}/run") for name in ("waterbirds", "celebA", "vlcs")},
        ("leaderboard", "run"): (
            "-d",
            "camelyon17",
            "--algorithm",
            "ERM",
            "--root_dir",
            "{folder}",
            "--output_dir",
            "{folder}/out",
        ),
        ("leaderboard", "pack"): (run, "-o", "{folder}/out.tar.gz"),
        ("leaderboard", "check"): (run,),
        ("doctor",): ("--root_dir", material.root),
        ("get-domainbed",): ("--source", "{folder}/missing"),
    }


def _try(material, words: tuple[object, ...], room: Room) -> list[str]:
    shutil.copytree(material.finished("CIM_VIB"), room.folder / "run")
    # not more memory and disk than a machine has
    outcome = room.run(*(str(word).replace("{folder}", str(room.folder)) for word in words), before=_limited)
    findings = outcome.status in FINDINGS.get(words[0], ()) and outcome.output.strip()
    return [] if findings and "Traceback" not in outcome.errors else ended(outcome)


def _limited() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))


def cases(material) -> list[Case]:
    """A value in the place of the right one, a flag without a value, a flag that does not exist."""
    material.finished("CIM_VIB")
    bases, found, parsers = _bases(material), [], dict(_parsers())
    trained = {flag for action in parsers[("train",)]._actions for flag in action.option_strings}
    for command, parser in parsers.items():
        base = bases.get(command, ())
        lines = [(*command, *base, "--no_such_flag"), (*command, *base, "too", "many", "words"), command]
        for action in parser._actions:
            flag = action.option_strings[-1:]
            shared = command == ("leaderboard", "run") and set(flag) <= trained  # they are parsed as train's
            if isinstance(action, argparse._HelpAction) or (flag and shared):
                continue
            if not flag:
                lines += [(*command, *base[1:], value) for value in TEXTS]
            elif action.nargs == 0:
                lines.append((*command, *base, f"{flag[0]}=x"))
            else:
                lines += [(*command, *base, f"{flag[0]}={value}") for value in _values(action)]
                lines += [(*command, *base, *flag)] if flag[0] not in SLOW else []
        found += [Case(_name(words), functools.partial(_try, material, words)) for words in lines]
    return found


def _name(words: tuple[object, ...]) -> str:
    text = " ".join(map(str, words[:2])) + " ... " + str(words[-1])
    return ascii(text)[1:-1] if len(text) < 100 else ascii(text)[1:100] + "..."
