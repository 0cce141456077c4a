"""Typed configuration to objects, and the run folder that they end in."""

from kscout.experiment.config import Experiment, load_experiment
from kscout.experiment.folder import RunFolder
from kscout.experiment.load import load_data
from kscout.experiment.run import run_experiment

__all__ = ["Experiment", "RunFolder", "load_data", "load_experiment", "run_experiment"]
