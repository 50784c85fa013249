"""Optimizers: one module each, beside the curvature and damping mathematics that they share."""
