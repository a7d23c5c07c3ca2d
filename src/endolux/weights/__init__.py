"""Bundled weights, one folder a model."""
