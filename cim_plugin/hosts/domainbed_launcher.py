"""DomainBed's command launcher of this plugin: a sweep's jobs on every GPU that is visible."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import torch


def cim_local(commands):
    """Run a sweep's commands with the interpreter that runs the sweep, one at a time on every visible GPU, or on the
    CPU.

    The host writes ``python -m domainbed.scripts.train``, which is another interpreter where another ``python`` is
    first
    on the path. Goes on after a failed job.

    Raises:
        SystemExit: 1 where jobs failed, naming how many and how to run them again; 143 on SIGTERM, when the jobs have
            ended.
    """
    waiting, running, failed = list(enumerate(commands, 1)), {}, 0
    devices = _gpus() or [None]
    before = _exit_on_sigterm()
    try:
        while waiting or running:
            for device in devices:
                if device in running and running[device].poll() is not None:
                    failed += running.pop(device).returncode != 0
                if waiting and device not in running:
                    number, command = waiting.pop(0)
                    print(
                        f"cim_local: job {number} of {len(commands)}" + (f" on GPU {device}" if device else ""),
                        flush=True,
                    )
                    chosen = {"CUDA_VISIBLE_DEVICES": device} if device else {}
                    running[device] = subprocess.Popen(
                        _with_this_interpreter(shlex.split(command)), env={**os.environ, **chosen}
                    )
            time.sleep(0.1)
    finally:
        for process in running.values():  # stopped: a terminal has told them, too
            process.terminate()
        for process in running.values():
            process.wait()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    if failed:
        print(
            f"cim_local: {failed} of {len(commands)} jobs failed; their err.txt says why. 'sweep delete_incomplete', "
            f"then 'launch' runs them again",
            file=sys.stderr,
        )
        raise SystemExit(1)


def _exit_on_sigterm():
    """Leave as Ctrl-C does, by an exception, so that the jobs end with us; the handler that was there before.

    None, and nothing is changed, where this is not the thread that gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _gpus() -> list[str]:
    """The names of those that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = range(torch.cuda.device_count())
    return (
        [str(number) for number in visible]
        if named is None
        else [name for name in named.split(",") if name.strip()][: len(visible)]
    )


def _with_this_interpreter(words: list[str]) -> list[str]:
    if words[:3] == ["python", "-m", "domainbed.scripts.train"]:
        return [sys.executable, "-m", "cim_plugin.domainbed", "train", *words[3:]]
    return words
