"""``cim-plugin``: one table of commands, each imported only when it runs."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Collection, Mapping

from . import __version__
from .errors import InputError, exit_status
from .flags import Parser

#: command -> (module with add_arguments(parser) and run(args) -> exit status, what it does)
COMMANDS = {
    "train": (
        "cim_plugin.wilds_runner.command",
        "train or evaluate on an image data set of the wilds package, with run_expt's flags",
    ),
    "retrain": (
        "cim_plugin.retrain.command",
        "fit the last layer of a finished 'cim-plugin train' again on its frozen features, in a run of its own",
    ),
    "data": ("cim_plugin.data.command", "make offline stand-ins, convert public archives, check what is there"),
    "compare": (
        "cim_plugin.compare.command",
        "one table per data set from DomainBed's output folders and those of 'cim-plugin train'",
    ),
    "show": ("cim_plugin.show.command", "pictures of what the transformation network of a run has learnt"),
    "predict": ("cim_plugin.inference.predict", "classes of photographs by a trained model, and pictures of m"),
    "export": ("cim_plugin.inference.export", "a trained model as torch.export program, ONNX or safetensors"),
    "leaderboard": ("cim_plugin.leaderboard.command", "run, pack and check a submission to the WILDS leaderboard"),
    "doctor": ("cim_plugin.doctor", "versions, hosts, data and known traps: what will run here and what will not"),
    "get-domainbed": (
        "cim_plugin.hosts.domainbed.get",
        "fetch the tested DomainBed into the user's cache, importable from any folder",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command. Exit status: the command's own; 2 for a wrong argument, in one line; 130 on Ctrl-C; 141 where
    nobody reads on.
    """
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv[:1] and argv[0] in COMMANDS else ""
    return exit_status(f"cim-plugin {name}".rstrip(), lambda: _run(argv))


def _run(argv: list[str]) -> int:
    parser, commands = build_parser(argv[:1])
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        commands[args.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return importlib.import_module(COMMANDS[args.command][0]).run(args)


def build_parser(names: Collection[str]) -> tuple[Parser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of the whole command line, and that of every command.

    Args:
        names: commands whose flags are wanted; their modules are imported.
    """
    parser = Parser(prog="cim-plugin", description="Contrastive Input Morphing for DomainBed and WILDS.")
    parser.add_argument("--version", action="version", version=f"cim-plugin {__version__}")
    parser.add_argument(
        "--print-completion", action=PrintCompletion, metavar="SHELL", help="a script for bash, zsh, fish or tcsh"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, what) in COMMANDS.items():
        command = commands.add_parser(
            name, help=what, description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        if name in names:
            importlib.import_module(module).add_arguments(command)
    return parser, commands.choices


class PrintCompletion(argparse.Action):
    """Prints a shell's script that completes commands and flags, and ends."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            import shtab
        except ImportError as error:
            raise InputError(
                f"{option_string} needs the package 'shtab'; pip install 'cim_plugin[completion]'"
            ) from error
        if values not in shtab.SUPPORTED_SHELLS:
            parser.error(f"{option_string}: {values!r} is no shell of {', '.join(shtab.SUPPORTED_SHELLS)}")
        print(shtab.complete(build_parser(COMMANDS)[0], values))
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
