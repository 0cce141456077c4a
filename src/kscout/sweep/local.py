"""Worker processes on this machine, which live for many runs: starting one takes seconds."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from kscout.errors import UserError
from kscout.sweep import causes
from kscout.sweep.folder import Attempt, Ended, SweepFolder

Task = tuple[dict[str, Any], Attempt]
"""An experiment as plain values, its name the run's id, and the try to make of it."""

POLL = 0.5
"""Seconds between looks at whether the sweep was cancelled."""


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_local(
    folder: SweepFolder,
    tasks: Iterable[Task],
    at_once: int,
    tick: Callable[[Sequence[str]], object] = lambda at_work: None,
    done: Callable[[str, Ended], object] = lambda run_id, ended: None,
) -> None:
    """Run tasks in worker processes, each with its share of the cores.

    A worker that dies costs the run that it was at, and is replaced. Workers die with the
    coordinator, however that ends.

    Parameters
    ----------
    tasks : asked for one by one, when a worker is free
    at_once : how many workers
    tick : called twice a second with the ids of the runs at work
    done : called after each try

    Raises
    ------
    UserError
        if the sweep's folder can no longer be written
    """
    queue = iter(tasks)
    with _workers(folder, at_once) as workers:
        for worker in workers:
            worker.give(next(queue, None))
        while any(worker.task for worker in workers):
            ready = wait([source for w in workers for source in w.sources], timeout=POLL)
            for worker in workers:
                if worker.is_overdue:
                    ended = worker.give_up(causes.TIME_LIMIT)
                elif worker.task and set(worker.sources) & set(ready):
                    ended = worker.answer()
                else:
                    continue
                done(worker.run_id, ended)
                if ended.cause == causes.STORAGE:
                    raise UserError(
                        f"{causes.told(ended.error)}; finished runs are kept: make room and go on "
                        f"with kscout sweep resume {folder.path}"
                    )
                worker.give(next(queue, None))
            if at_work := [worker.run_id for worker in workers if worker.task]:
                tick(at_work)


@contextmanager
def _workers(folder: SweepFolder, n: int) -> Iterator[list["_Worker"]]:
    workers = [_Worker(folder, max(1, n_cores() // n), number) for number in range(n)]
    try:
        yield workers
    except KeyboardInterrupt:
        for worker in workers:
            if worker.task:
                worker.give_up(causes.CANCELLED)
        raise
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process, started when it is first given something to do."""

    def __init__(self, folder: SweepFolder, n_threads: int, number: int) -> None:
        self.folder, self.n_threads, self.number = folder, n_threads, number
        self.task: Task | None = None
        self._process: BaseProcess | None = None
        self._oom_kills, self._since = 0, time.monotonic()

    @property
    def run_id(self) -> str:
        assert self.task is not None
        return str(self.task[0]["name"])

    @property
    def sources(self) -> list[Any]:
        """What becomes ready when the worker has answered, or died."""
        return [self._pipe, self._process.sentinel] if self.task and self._process else []

    @property
    def is_overdue(self) -> bool:
        """Whether the try has had its time."""
        minutes = self.task[1].minutes if self.task else None
        return minutes is not None and time.monotonic() - self._since > 60 * minutes

    def give(self, task: Task | None) -> None:
        """Hand out a task; without one, the worker's work is done."""
        self.task = task
        if task is None:
            self.stop()
            return
        if self._process is None or not self._process.is_alive():
            self._start(task[0]["trainer"]["n_devices"])
        self.folder.add_attempt(self.run_id, task[1])
        self._oom_kills, self._since = causes.n_oom_kills(), time.monotonic()
        with suppress(OSError):  # of one that died in this moment: its sentinel tells
            self._pipe.send(task)

    def _start(self, n_devices: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=work, args=(theirs, self.folder.path, self.n_threads, self.number, n_devices)
        )
        self._process.start()
        theirs.close()

    def answer(self) -> Ended:
        """How the try ended, from the worker, or from how the worker died."""
        assert self._process is not None
        try:
            ended: Ended = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            ended = self._write(self._death(self._process.exitcode or 0))
        starved = ended.cause in (causes.OUT_OF_MEMORY, causes.OUT_OF_GPU_MEMORY)
        if starved or (self.task and self.task[1].memory_mb):
            self.stop()  # what this run leaves in memory is not the next one's burden
        return ended

    def give_up(self, cause: str) -> Ended:
        """Stop at once what is being done."""
        self.stop()
        return self._write(Ended(cause=cause))

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def _death(self, code: int) -> Ended:
        if code == -signal.SIGKILL:
            by_kernel = causes.n_oom_kills() > self._oom_kills
            cause = causes.OUT_OF_MEMORY if by_kernel else causes.KILLED
            return Ended(cause=cause, error="the process was killed")
        if code == -signal.SIGTERM:
            return Ended(cause=causes.KILLED, error="the process was terminated")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Ended(cause=causes.ERROR, error=f"the process ended with {how}")

    def _write(self, ended: Ended) -> Ended:
        """Write down how the try ended, unless it has done so itself."""
        assert self.task is not None
        number = self.task[1].number
        written = self.folder.ended(self.run_id, number)
        if written is None:
            ended = ended.model_copy(update={"seconds": time.monotonic() - self._since})
            written = self.folder.end(self.run_id, number, ended)
        return written


def work(pipe: Connection, folder: Path, n_threads: int, number: int, n_devices: int) -> None:
    """What a worker process does: run what comes through the pipe, and answer how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's to answer
    import torch

    from kscout.learning.distribute import die_with_parent
    from kscout.sweep.work import remembering, try_run

    threading.Thread(target=die_with_parent, daemon=True).start()
    torch.set_num_threads(n_threads)
    take_gpus(torch.cuda.device_count(), number, n_devices)
    load = remembering()
    while True:
        try:
            tree, attempt = pipe.recv()
        except EOFError:
            return
        pipe.send(try_run(SweepFolder(folder), tree, attempt, load))


def take_gpus(n_gpus: int, number: int, n_devices: int) -> None:
    """Let this process see its share of the GPUs only; call it before CUDA starts."""
    if n_gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n_gpus)))
        devices = visible.split(",")
        mine = [devices[(number * n_devices + i) % n_gpus] for i in range(n_devices)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
