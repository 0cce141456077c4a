"""kscout: learn where to sample k-space and how to reconstruct from what was sampled."""

__version__ = "0.1.0"
