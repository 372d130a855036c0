"""Simulated worlds in which strategies share a page, and what every contender earns there."""
