"""Takes the words of 'cim-plugin train' and leaves the results.json of a finished run, without training.

FAIL: seeds that end with exit status 3. KILL: seeds that end by SIGKILL. WAIT: seeds that wait to be stopped, and note
every signal
in <log_dir>/signals as the real one notes its state.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from cim_plugin.wilds_runner import config as flags

parser = argparse.ArgumentParser()
flags.add_arguments(parser)
assert sys.argv[1] == "train"
config = flags.make_config(parser.parse_args(sys.argv[2:]))
assert config.resume is True
seed, folder = str(config.seed), Path(config.log_dir)
folder.mkdir(parents=True, exist_ok=True)


def save_and_stop(number, frame):
    with open(folder / "signals", "a") as file:
        file.write(f"{number}\n")
    time.sleep(0.3)  # saving takes a while; a second signal would be noted, too
    sys.exit(128 + number)


if seed in os.environ.get("WAIT", "").split():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, save_and_stop)
    (folder / "waiting").touch()
    time.sleep(60)
if seed in os.environ.get("FAIL", "").split():
    sys.exit(3)
if seed in os.environ.get("KILL", "").split():
    os.kill(os.getpid(), signal.SIGKILL)
results = {
    "status": "finished",
    "dataset": config.dataset,
    "algorithm": config.algorithm,
    "seed": config.seed,
    "selection": {},
    "config": config.as_record(),
}
(folder / "results.json").write_text(json.dumps(results))
with open(folder.parent / "trained", "a") as file:
    file.write(f"{seed}\n")
