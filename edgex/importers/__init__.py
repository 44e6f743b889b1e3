"""Weights of other libraries become models of edgex."""
