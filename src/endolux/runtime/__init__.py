"""Bundles, engines and prediction: what runs without torch."""
