"""Cameras, rays and alignment, as plain functions on arrays."""
