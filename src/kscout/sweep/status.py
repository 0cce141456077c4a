"""How far every run of a sweep is: from its folder, from the tries made, and from SLURM."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kscout.errors import UserError
from kscout.sweep import causes
from kscout.sweep.folder import Attempt, SweepFolder, epochs_done
from kscout.sweep.slurm import AT_WORK, QUEUED, RUNNING, job_states
from kscout.sweep.spec import PlannedRun
from kscout.sweep.text import short_names, written

FINISHED, WAITING, FAILED = "finished", "waiting", "failed"
STATES = (FINISHED, RUNNING, QUEUED, WAITING, FAILED)
STYLES = {
    FINISHED: "green",
    RUNNING: "cyan",
    QUEUED: "blue",
    FAILED: "red",
    "interrupted": "yellow",
}


@dataclass(frozen=True)
class RunStatus:
    """One run's state.

    Attributes
    ----------
    state : one of :data:`STATES`; ``queued`` is with SLURM, ``waiting`` with nobody
    cause, error : of a failed run, why, and the last lines of its traceback
    epochs : of gradient descent that are behind it
    attempts : all tries, first to last
    """

    planned: PlannedRun
    state: str
    cause: str | None = None
    error: str = ""
    epochs: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def id(self) -> str:
        return self.planned.id

    @property
    def label(self) -> str:
        """The state, and the cause where there is one; what may simply go on has not failed."""
        if self.state != FAILED:
            return self.state
        if self.cause == causes.PRUNED:
            return causes.PRUNED
        how = "interrupted" if self.cause in causes.INTERRUPTIONS else FAILED
        return f"{how}: {self.cause}"

    @property
    def n_epochs(self) -> int:
        return self.planned.experiment.training.epochs


def run_states(folder: SweepFolder, planned: Sequence[PlannedRun]) -> list[RunStatus]:
    """The state of every run, in the order of the plan."""
    tries = {run.id: folder.attempts(run.id) for run in planned}
    asked = [
        tried[-1]
        for run_id, tried in tries.items()
        if tried and tried[-1].job and not folder.ended(run_id, tried[-1].number)
    ]
    jobs = job_states(folder, asked) if asked else {}
    return [_run_state(folder, run, tries[run.id], jobs) for run in planned]


def _run_state(
    folder: SweepFolder, planned: PlannedRun, tries: Sequence[Attempt], jobs: Mapping[str, str]
) -> RunStatus:
    run = folder.run(planned.id)
    epochs = epochs_done(run.path)

    def status(state: str, cause: str | None = None, error: str = "") -> RunStatus:
        return RunStatus(planned, state, cause, error, epochs, tuple(tries))

    if run.state == "finished":
        return status(FINISHED)
    if run.is_locked:  # whatever was written of it: somebody is at it
        return status(RUNNING)
    if not tries:
        return status(WAITING)
    last = tries[-1]
    ended = folder.ended(planned.id, last.number)  # perhaps only since SLURM was asked
    if ended is not None:
        return status(FAILED, ended.cause, ended.error) if ended.cause else status(WAITING)
    if last.job is None:
        return status(RUNNING) if folder.is_locked else status(FAILED, causes.KILLED)
    state = jobs[last.job]
    return status(state) if state in AT_WORK else status(FAILED, state, "as SLURM says")


def counts(states: Sequence[RunStatus]) -> dict[str, int]:
    """How many runs are in each state, those that failed by their cause."""
    found = Counter(status.label for status in states)
    return {name: found[name] for name in sorted(found, key=_order)}


def _order(name: str) -> tuple[int, str]:
    state = name.split(":")[0]
    return STATES.index(state) if state in STATES else len(STATES), name


def overview(states: Sequence[RunStatus], height: int = 12) -> Group:
    """Counts, and the runs that are at work, for the terminal."""
    n_done = sum(s.state == FINISHED for s in states)
    head = Table.grid(padding=(0, 2))
    head.add_row(
        ProgressBar(total=max(1, len(states)), completed=n_done, width=30),
        Text.assemble(*_counted(states)),
    )
    running = [s for s in states if s.state == RUNNING]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for title in ("running", "epoch", "settings"):
        table.add_column(title, no_wrap=title != "settings")
    for s in running[:height]:
        table.add_row(
            s.id, f"{s.epochs} of {s.n_epochs}" if s.n_epochs else "-", settings_text(s.planned)
        )
    if len(running) > height:
        table.add_row("...", "", f"and {len(running) - height} more")
    return Group(head, table) if running else Group(head)


def _counted(states: Sequence[RunStatus]) -> list[tuple[str, str]]:
    parts: list[tuple[str, str]] = [(f"{len(states)} runs", "bold")]
    for name, n in counts(states).items():
        parts += [(", ", ""), (f"{n} {name}", STYLES.get(name.split(":")[0], ""))]
    return parts


def settings_text(run: PlannedRun) -> str:
    """``acceleration=4 kind=tile``, what the sweep set; or what people call the run."""
    if run.label:
        return run.label
    names = short_names(list(run.settings))
    return " ".join(f"{names[path]}={written(value)}" for path, value in run.settings.items())


def print_failures(folder: SweepFolder, states: Sequence[RunStatus], console: Console) -> None:
    """Each way in which runs failed once, with a run to look at; and what goes on."""
    alike: dict[tuple[str, str], list[RunStatus]] = {}
    for s in states:
        if s.state == FAILED and s.cause not in (causes.PRUNED, *causes.INTERRUPTIONS):
            alike.setdefault((s.cause or "", causes.told(s.error)), []).append(s)
    for (cause, error), runs in alike.items():
        text = f"{len(runs)} failed, {cause}{': ' + error if error else ''}"
        look = f"(kscout sweep logs {folder.path} {runs[0].id})"
        console.print(Text(f"{text} {look}", style="yellow"), soft_wrap=True)
    if any(s.cause in causes.INTERRUPTIONS for s in states):
        console.print(Text(f"interrupted runs go on: kscout sweep resume {folder.path}"))


def read_logs(folder: SweepFolder, beginning: str) -> str:
    """What all tries of a run printed, then what SLURM printed about the last.

    Raises
    ------
    UserError
        if no run's id begins so, or several do
    """
    ids = [run.id for run in folder.planned() if run.id.startswith(beginning)]
    if len(ids) != 1:
        known = ", ".join(ids[:5]) if ids else "ids are in kscout sweep table"
        many = f"{len(ids)} runs begin" if ids else "no run begins"
        raise UserError(f"{many} with '{beginning}': {known}")
    parts = []
    jobs = [attempt.job for attempt in folder.attempts(ids[0]) if attempt.job]
    for path in (folder.log(ids[0]), *(folder.slurm / f"{job}_0_log.err" for job in jobs)):
        if path.is_file():
            parts.append(path.read_text(encoding="utf-8", errors="replace").rstrip())
    return "\n".join(parts) or f"{ids[0]} has not been tried yet"
