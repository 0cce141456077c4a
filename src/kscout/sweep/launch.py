"""Where and how the runs of a sweep are run: what the command line says, kept for the next time."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from kscout.errors import UserError
from kscout.experiment.config import STRICT

MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([MGT])I?B?", re.IGNORECASE)
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d\d))?(?::(?P<third>\d\d))?")
Count = Annotated[int, Field(ge=1)] | None


class Launch(BaseModel):
    """Options of ``kscout sweep run`` and ``resume``.

    Attributes
    ----------
    on : this machine, or a SLURM cluster
    at_once : runs at a time; without it, one for each core, or as many as SLURM lets
    minutes : time limit of a run
    memory_mb, max_memory_mb : limit of a run, and how far it may grow when that was too little
    cpus : for each process
    gpus : for each machine
    partition, account : SLURM's
    slurm : further options of sbatch
    errors_too : try again what ended with an error
    """

    model_config = STRICT

    on: Literal["local", "slurm"] = "local"
    at_once: Count = None
    minutes: Count = None
    memory_mb: Count = None
    max_memory_mb: Count = None
    cpus: Count = None
    gpus: Count = None
    partition: str | None = None
    account: str | None = None
    slurm: dict[str, Any] = {}
    errors_too: bool = False

    @model_validator(mode="after")
    def _belongs_together(self) -> "Launch":
        for name in ("cpus", "gpus", "partition", "account", "slurm"):
            if self.on == "local" and getattr(self, name):
                raise ValueError(f"--{name} is SLURM's: valid with --on slurm")
        if self.max_memory_mb and self.max_memory_mb < (self.memory_mb or 2**62):
            raise ValueError("--max-mem is how far --mem may grow: valid is both, and not less")
        return self


def megabytes(text: str) -> int:
    """``4G``, ``500MB`` and the like in MB of 2^20 bytes."""
    found = MEMORY.fullmatch(text.strip())
    size = int(float(found[1]) * 1024 ** "MGT".index(found[2].upper())) if found else 0
    if not size:
        raise UserError(f"'{text}' is no amount of memory: valid is a number with M, G or T, as 4G")
    return size


def minutes(text: str) -> int:
    """SLURM's times in minutes: ``90``, ``1:30:00``, ``2-12:00`` (days-hours:minutes)."""
    found = TIME.fullmatch(text.strip())
    total = 0
    if found:
        first, second, third = (int(found[part] or 0) for part in ("first", "second", "third"))
        if found["days"]:
            total = (int(found["days"]) * 24 + first) * 60 + second + (third > 0)
        elif found["third"]:
            total = first * 60 + second + (third > 0)
        else:
            total = first + (second > 0)
    if not total:
        raise UserError(
            f"'{text}' is no time limit: valid is minutes, hours:minutes:seconds or "
            "days-hours:minutes"
        )
    return total
