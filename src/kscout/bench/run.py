"""From a suite to its results: tune, run, audit, and only then compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from kscout.atomic import atomic_path
from kscout.bench import audit
from kscout.bench.certificate import bounds
from kscout.bench.choice import choose, ends_of_grids, validation_error
from kscout.bench.folder import (
    BenchFolder,
    BenchRun,
    finished,
    read_json,
    set_damaged_aside,
    write_json,
    write_records,
)
from kscout.bench.results import Evidence, document, refuse_results_of_another
from kscout.bench.suite import Suite, with_hint
from kscout.bench.swapped import swapped
from kscout.data import Splits
from kscout.errors import UserError
from kscout.experiment import load_data
from kscout.report.table import plural
from kscout.sweep.coordinate import start
from kscout.sweep.folder import SweepFolder
from kscout.sweep.launch import Launch
from kscout.sweep.slurm import AT_WORK
from kscout.sweep.spec import Sweep
from kscout.sweep.status import run_states

ROUNDS = 3
"""Times that damaged runs are done again before something else must be wrong."""


@dataclass(frozen=True)
class Ended:
    """How far a suite has come: its results once all is done; else whether something failed."""

    results: Path | None = None
    has_failed: bool = False


class _NotYetError(Exception):
    """Runs are still to end, or have failed."""

    def __init__(self, ended: Ended) -> None:
        super().__init__()
        self.ended = ended


def check_suite(suite: Suite, console: Console) -> None:
    """Audit what can be audited beforehand, and say how much there is to run.

    Raises
    ------
    UserError
        if the comparison would not be fair, or the data is missing
    """
    say_findings(audit.before(suite, _data(suite, console)), console)
    n_pairs = len(suite.masks) * len(suite.reconstructors)
    first, others = n_pairs * suite.n_trials, n_pairs * (len(suite.seeds) - 1)
    console.print(
        f"{first + others} runs: {first} at the first seed, "
        f"{others} of chosen trials at {plural(len(suite.seeds) - 1, 'other seed')}",
        highlight=False,
    )


def say_findings(findings: Sequence[audit.Finding], console: Console) -> None:
    for finding in findings:
        console.print(f"[bold]{finding.check}[/]: {finding.found}", highlight=False)


def run_suite(
    suite: Suite, folder: BenchFolder, results: Path, launch: Launch, command: str, console: Console
) -> Ended:
    """Bring a suite as far as it will go; called again, it goes on.

    Parameters
    ----------
    folder : keeps the runs, and what was worked out of them
    results : folder for NAME.json, NAME.md and NAME.html
    launch : where the runs compute
    command : that the results say they come from

    Returns
    -------
    where the results are, once all is done

    Raises
    ------
    UserError
        if the audit finds a breach, the data is missing, or the folder is another suite's
    """
    splits = _data(suite, console)
    findings = audit.before(suite, splits)
    _refuse_unwritable(results)
    out = results / f"{suite.name.replace(' ', '-')}.json"
    refuse_results_of_another(out, suite)
    with folder.locked():
        folder.claim(suite)
        try:
            evidence = _evidence(suite, folder, splits, findings, launch, console)
        except _NotYetError as stopped:
            return stopped.ended
        read_json(out, console)  # a damaged one is set aside
        write_json(out, document(suite, evidence, command))
        from kscout.bench.html import write_page_and_table  # takes a second to import

        write_page_and_table(out, evidence, folder, console)
    return Ended(out)


def _refuse_unwritable(folder: Path) -> None:
    """Now, and not after hours of runs."""
    with atomic_path(folder / ".writable") as temporary:
        temporary.touch()
    (folder / ".writable").unlink()


def _data(suite: Suite, console: Console) -> Splits:
    """The suite's data; where it is missing, with how to get it."""
    any_run = suite.experiment(next(iter(suite.reconstructors)), next(iter(suite.masks)), 0, 0)
    try:
        return load_data(any_run, console)
    except UserError as error:
        raise with_hint(error, suite.obtain) from error


def _evidence(
    suite: Suite,
    folder: BenchFolder,
    splits: Splits,
    findings: list[audit.Finding],
    launch: Launch,
    console: Console,
) -> Evidence:
    """Run everything, audit it, and gather what the comparison needs."""
    tried = folder.tuning_runs(suite)
    _run(folder.tuning, suite.tuning(), tried, launch, console)
    validation = {run.folder.path: validation_error(suite, run) for run in tried}
    chosen = choose(tried, validation)
    tested = folder.tested_runs(suite, chosen)
    others = [run for run in tested if run not in tried]
    plan = suite.final(chosen)
    folder.refuse_other_final(plan)
    _run(folder.final, plan, others, launch, console)
    findings = [
        *findings,
        *ends_of_grids(suite, chosen),
        *audit.after(suite, [*tried, *others], splits, console),
    ]
    write_records(tested, folder.path / "records.csv")
    first = [run for run in tested if run.seed == suite.seeds[0]]
    return Evidence(
        tried=tried,
        validation=validation,
        tested=tested,
        first=first,
        splits=splits,
        findings=findings,
        swapped=swapped(folder, first, splits["test"], suite.metric, console),
        bounds=bounds(suite, folder, first, splits, console) if suite.certificate else {},
    )


def _run(
    sweep: SweepFolder, plan: Sweep, runs: Sequence[BenchRun], launch: Launch, console: Console
) -> None:
    """Run a sweep, and again what is damaged; ``_NotYetError`` unless all has ended well."""
    for _ in range(ROUNDS):
        is_damaged = set_damaged_aside(runs, console)
        if not is_damaged and finished(runs):
            return
        start(sweep, plan, launch, console, {run.folder.path.name: run.name for run in runs})
        states = run_states(sweep, sweep.planned())
        if any(status.state in AT_WORK for status in states):
            console.print("call the same command again when they have ended", soft_wrap=True)
            raise _NotYetError(Ended())
        if not finished(runs):
            console.print(
                "not all runs have ended well, so nothing is compared: once it is mended, "
                f"kscout sweep resume {sweep.path} --errors-too, then the same command again",
                style="yellow",
                soft_wrap=True,
                highlight=False,
            )
            raise _NotYetError(Ended(has_failed=True))
    raise UserError(f"{sweep.path}: results are damaged again and again: is the disk sound?")
