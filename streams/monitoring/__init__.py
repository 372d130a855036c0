"""Metrics, traces and the state of a running system."""
