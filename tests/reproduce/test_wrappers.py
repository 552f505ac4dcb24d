"""The five commands: what is set up, what is started, and what is said of a wrong word."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from interpreters import run_python
from stand_ins import SCRIPTS

COMMANDS = ["background_challenge", "celebA", "colored_mnist", "vlcs", "waterbirds"]


def test_there_are_five_commands():
    files = [path for path in (SCRIPTS / "reproduce").iterdir() if path.is_file()]
    assert sorted(path.name for path in files if not path.suffix) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_command_sets_up_and_passes_its_words_on_from_where_it_is_called(command, tmp_path):
    root = tmp_path / "a checkout"
    for name, text in {
        "scripts/setup": "#!/bin/sh\necho set up\n",
        ".venv/bin/python": '#!/bin/sh\nprintf "%s|" "$PWD" "$PYTHONPATH" "$@"\n',
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    (root / "scripts" / "reproduce").mkdir()
    shutil.copy(SCRIPTS / "reproduce" / command, root / "scripts" / "reproduce")
    here = tmp_path / "here"
    here.mkdir()
    words = [os.path.relpath(root / "scripts" / "reproduce" / command, here), "--quick", "--data", "two words"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True)
    assert done.stdout == f"set up\n{here}|{root}|-m|scripts.reproduce|{command}|--quick|--data|two words|"


def test_unknown_experiment_is_said_in_one_line():
    done = run_python("-m", "scripts.reproduce", "cifar", cwd=SCRIPTS.parent)
    said = (
        "scripts/reproduce: error: 'cifar' is not an experiment; choose from vlcs, waterbirds, celebA, "
        "background_challenge, colored_mnist\n"
    )
    assert done.returncode == 2 and done.stderr == said
