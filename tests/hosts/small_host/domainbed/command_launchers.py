"""Launchers by name."""

import subprocess


def local_launcher(commands):
    for command in commands:
        subprocess.call(command, shell=True)


REGISTRY = {"local": local_launcher}
