"""``cim-plugin data`` in the process of a test."""

from __future__ import annotations

from cim_plugin import cli


def command(monkeypatch, capsys, folder):
    """A function of the words after 'cim-plugin data' that returns exit status, output and errors; ``folder`` becomes the current one."""
    monkeypatch.setitem(cli.COMMANDS, "data", ("cim_plugin.data.command", "data sets"))
    monkeypatch.chdir(folder)

    def run(*words):
        status = cli.main(["data", *map(str, words)])
        return status, *capsys.readouterr()

    return run
