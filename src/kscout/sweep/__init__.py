"""Many experiments, here or on a SLURM cluster, that end in one table."""
