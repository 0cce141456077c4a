"""The processes that share a training: started here, on one machine, or by SLURM on several."""

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from kscout.errors import UserError

LOCALHOST = "127.0.0.1"
FOR_THE_PARENT = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
ShouldStop = Callable[[], bool]


def check_processes(batch_size: int, n_devices: int, n_nodes: int) -> None:
    """Raise ``UserError`` if a training cannot be shared so."""
    n_processes = n_devices * n_nodes
    check_share(batch_size, n_processes)
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    if n_gpus is not None and n_devices > n_gpus:
        raise UserError(f"trainer.n_devices {n_devices} is more than the GPUs here: {n_gpus}")
    if n_nodes > 1 and not started_by_slurm(n_devices, n_nodes):
        raise UserError(
            f"trainer.n_nodes {n_nodes} needs a SLURM job step with one task per process: "
            f"srun --nodes={n_nodes} --ntasks-per-node={n_devices}"
        )
    if n_processes > 1 and started_by_slurm(n_devices, n_nodes):
        _check_slurm_shape("SLURM_NNODES", "nodes", n_nodes)
        _check_slurm_shape("SLURM_NTASKS_PER_NODE", "ntasks-per-node", n_devices)


def check_share(batch_size: int, n_processes: int) -> None:
    """Raise ``UserError`` if a batch cannot be shared evenly."""
    if batch_size % n_processes:
        raise UserError(
            f"training.batch_size {batch_size} cannot be shared by {n_processes} processes "
            f"(trainer.n_devices x n_nodes): valid is a multiple of {n_processes}"
        )


def _check_slurm_shape(variable: str, option: str, needed: int) -> None:
    found = os.environ.get(variable, "not set")
    if found != str(needed):
        raise UserError(f"{variable} is {found}: the trainer needs srun --{option}={needed}")


def started_by_slurm(n_devices: int, n_nodes: int) -> bool:
    """Whether SLURM has already started every process of the training, this one among them.

    The number of tasks of the *step* tells: in a batch script, which runs once whatever the job's
    number of tasks, it is not set.
    """
    n_processes = n_devices * n_nodes
    return n_processes > 1 and os.environ.get("SLURM_STEP_NUM_TASKS") == str(n_processes)


def place() -> tuple[int, int]:
    """Rank of this process, and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum over all processes, in place, the same in each."""
    if place()[1] > 1:
        dist.all_reduce(value)
    return value


def environment(n_devices: int, n_nodes: int) -> Any:
    """Where Lightning reads the rank; named, as it would guess and take a SLURM job for its own."""
    from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
        LightningEnvironment,
        SLURMEnvironment,
    )

    if started_by_slurm(n_devices, n_nodes):
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


def default_device() -> str:
    """Where all is computed that nobody said otherwise of: ``cuda`` or ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def trainer_options(n_devices: int, n_nodes: int, accelerator: str | None = None) -> dict[str, Any]:
    """Devices and strategy for Lightning's trainer, whose processes have been started."""
    if n_devices * n_nodes == 1:
        return {"accelerator": accelerator or default_device(), "devices": 1}
    from pytorch_lightning.strategies import DDPStrategy

    return {
        "accelerator": default_device(),
        "devices": n_devices,
        "num_nodes": n_nodes,
        "strategy": DDPStrategy(process_group_backend=_backend(), start_method="popen"),
        "use_distributed_sampler": False,
    }


def _backend() -> str:
    return "nccl" if torch.cuda.is_available() else "gloo"


def run_processes(
    work: Callable[[ShouldStop], object], n_processes: int, should_stop: ShouldStop
) -> None:
    """Do ``work`` in ``n_processes`` new processes of this machine, which end with this one.

    Parameters
    ----------
    work : can be pickled; is called with a function that asks ``should_stop`` in this process

    Raises
    ------
    Exception
        what ``work`` raised in the process where it failed first; the others are killed
    ChildProcessError
        if a process died of a signal
    """
    store = TCPStore(LOCALHOST, 0, is_master=True, wait_for_workers=False)
    n_threads = max(1, torch.get_num_threads() // n_processes)
    context = torch.multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        with _signals_kept_from_children():
            for rank in range(n_processes):
                ours, theirs = context.Pipe()
                job = (rank, n_processes, store.port, n_threads, theirs)
                processes.append(context.Process(target=_child, args=job, name=f"rank {rank}"))
                pipes.append(ours)
                processes[-1].start()
                theirs.close()
        for pipe in pipes:
            # As an argument of the process it could not hold two tensors of one storage.
            pipe.send(work)
        _attend(processes, pipes, should_stop)
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def _attend(
    processes: Sequence[BaseProcess], pipes: Sequence[Connection], should_stop: ShouldStop
) -> None:
    """Answer what the processes ask until all have ended; raise what one of them raised."""
    open_pipes = dict(zip(pipes, processes, strict=True))
    while open_pipes:
        for pipe in wait(list(open_pipes)):
            assert isinstance(pipe, Connection)
            try:
                message = pipe.recv()
            except (EOFError, ConnectionResetError):
                ended = open_pipes.pop(pipe)
                ended.join()
                _raise_if_killed(processes)
                if ended.exitcode:
                    raise RuntimeError(
                        f"training process '{ended.name}' ended with code {ended.exitcode}"
                    ) from None
                continue
            if isinstance(message, BaseException):
                _raise_if_killed(processes)  # of which this one only felt the consequences
                raise message
            pipe.send(should_stop())


def _raise_if_killed(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if process.exitcode is not None and process.exitcode < 0:
            name = signal.Signals(-process.exitcode).name
            raise ChildProcessError(f"training process '{process.name}' was killed by {name}")


@contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Ctrl-C and SLURM signal every process; only this one must act on it, and end the others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(rank: int, n_processes: int, port: int, n_threads: int, pipe: Connection) -> None:
    threading.Thread(target=die_with_parent, daemon=True).start()
    # Lightning reads both; a number of threads that is not set it would choose by itself.
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "OMP_NUM_THREADS": str(n_threads)}
    torch.set_num_threads(n_threads)

    def ask() -> bool:
        pipe.send("should this stop?")
        return pipe.recv()

    try:
        work = pipe.recv()
        store = TCPStore(LOCALHOST, port)
        dist.init_process_group(_backend(), store=store, rank=rank, world_size=n_processes)
        work(ask)
    except BaseException as error:
        pipe.send(_portable(error))
    else:
        dist.destroy_process_group()


def _portable(error: BaseException) -> BaseException:
    """The error, with its traceback as a note; a plain one in its place if it cannot be sent."""
    where = "".join(traceback.format_exception(error))
    try:
        sent = pickle.loads(pickle.dumps(error))
    except Exception:
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note(f"in a training process:\n{where}")
    return sent


def die_with_parent() -> None:
    """Wait for the process that started this one to end, however it does; then end this one."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
