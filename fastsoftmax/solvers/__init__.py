"""Minimisers. They know an objective, not data or classes."""
