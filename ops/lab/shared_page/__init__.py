"""Simulated worlds in which strategies share a page, and the clicks of each contender there."""
