"""Rewrites: what a failing query should have been."""
