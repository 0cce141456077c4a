"""Fit a sampler and a reconstructor: in closed form, by gradient descent, or by search."""
