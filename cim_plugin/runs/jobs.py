"""Jobs, each a process of its own: so many at a time, a failed one stops no other, Ctrl-C stops all and loses nothing.

Several commands share jobs out where each job takes the lock of its run (:mod:`..folder_lock`), and ends with
:data:`LEFT` where another process holds it.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Protocol, Sequence

LEFT = 75  #: exit status of a job that another process is at
POLL = 0.05  #: seconds
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  #: of <linux/prctl.h>

Environment = Mapping[str, str]  #: variables that a process has beside those of this one


class Process(Protocol):
    """What is needed of a running job."""

    def poll(self) -> int | None:
        """The exit status, that of a signal negative; None while it runs."""

    def send(self, number: int) -> None:
        """Pass a signal on to it."""


Start = Callable[[Environment], Process]


@dataclass(frozen=True)
class Job:
    """A process to be started."""

    name: str
    start: Start


class Stopped(KeyboardInterrupt):
    """A signal has stopped the jobs, which have ended."""

    def __init__(self, number: int, statuses: dict[str, int]):
        super().__init__(number)
        self.number = number
        self.statuses = statuses  #: as :func:`run` would have returned them


def command(words: Sequence[str], **settings: Any) -> Start:
    """Starts a command line.

    Args:
        settings: of subprocess.Popen.
    """
    return lambda environment: _Command(words, env={**os.environ, **environment}, start_new_session=True, **settings)


def end_with_parent() -> None:
    """As ``preexec_fn`` of a :func:`command`: it gets SIGTERM where the process that asks was killed. On Linux only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def function(context: Any, target: Callable[..., Any], *args: Any) -> Start:
    """Starts a function of a module. A signal is a KeyboardInterrupt in it, as is the end of the process that asks.

    Args:
        context: one of multiprocessing, which says how its process is made.
    """
    return lambda environment: _Function(context, (dict(environment), target, args))


def run(
    jobs: Sequence[Job],
    slots: Sequence[Environment] = ({},),
    *,
    started: Callable[[Job, Environment], None] = lambda job, slot: None,
    ended: Callable[[Job, int], None] = lambda job, status: None,
    watch: Callable[[], None] = lambda: None,
    every: float = 0.3,
    go_on: bool = True,
    heard: Sequence[int] = (),
) -> dict[str, int]:
    """Run the jobs in order, as many at a time as there are slots.

    Args:
        slots: a job has the variables of the one that it runs in, a GPU for instance.
        started: called before a job starts.
        ended: called after it has ended, unless that is by a signal to this process.
        watch: called every so many seconds, and at the end.
        go_on: after a job that failed; else the others are stopped, and those that wait are not started.
        heard: signals beside :data:`SIGNALS` that stop the jobs.

    Returns:
        The name of every job that was started -> its exit status, in the order in which they ended.

    Raises:
        Stopped: SIGINT, SIGTERM or SIGHUP came. The jobs have got it, once each, and have ended.
    """
    waiting, statuses = list(jobs), dict[str, int]()
    running: dict[int, tuple[Job, Process]] = {}  # by the number of the slot
    passed_on, next_look = 0, 0.0
    with _received([*SIGNALS, *heard]) as signals:
        try:
            while waiting or running:
                for number, slot in enumerate(slots):
                    if number in running and (status := running[number][1].poll()) is not None:
                        job, _ = running.pop(number)
                        statuses[job.name] = status
                        if not signals:
                            ended(job, status)
                        if status not in (0, LEFT) and not go_on:
                            waiting.clear()
                            _end([process for _, process in running.values()])
                            running.clear()
                    if waiting and number not in running and not signals:
                        job = waiting.pop(0)
                        started(job, slot)
                        running[number] = job, job.start(slot)
                for number in signals[passed_on:]:
                    waiting.clear()
                    passed_on += 1
                    for _, process in running.values():
                        process.send(number)
                if time.monotonic() >= next_look:
                    watch()
                    next_look = time.monotonic() + every
                time.sleep(POLL)
        finally:
            _end([process for _, process in running.values()])
        watch()
    if signals:
        raise Stopped(signals[0], statuses)
    return statuses


def failed(statuses: Mapping[str, int]) -> dict[str, str]:
    """The jobs that failed, and how they ended."""
    return {
        name: f"exit status {status}" if status > 0 else f"signal {-status}"
        for name, status in statuses.items()
        if status not in (0, LEFT)
    }


@contextlib.contextmanager
def _received(numbers: Sequence[int]) -> Iterator[list[int]]:
    """The signals that come meanwhile; one that this process ignores, by nohup for instance, stays ignored."""
    signals: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    heard = [number for number in numbers if main and signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, frame: signals.append(number)) for number in heard}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(pid: int, number: int) -> None:
    """To a job and the processes that it has started."""
    number = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)  # it has only just started


def _end(processes: Sequence[Process]) -> None:
    for process in processes:
        process.send(signal.SIGTERM)
    while any(process.poll() is None for process in processes):
        time.sleep(POLL)


class _Command(subprocess.Popen):
    """A command line in a process."""

    def send(self, number: int) -> None:
        _send(self.pid, number)


class _Function:
    """A function in a process of multiprocessing."""

    def __init__(self, context: Any, call: tuple):
        self.process = context.Process(target=_call, args=call)
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    def send(self, number: int) -> None:
        _send(self.process.pid, number)


def _call(environment: Environment, target: Callable[..., Any], args: tuple) -> None:
    os.setsid()  # Ctrl-C on a terminal comes once, from the process that started this one
    os.environ.update(environment)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        target(*args)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _stop_with_parent() -> None:
    """Where the process that asks was killed: the same command takes up the run, and must not find another at it."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGINT)
