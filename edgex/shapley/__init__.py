"""Shapley values from coalitions, and the labels that vectors are learned from."""
