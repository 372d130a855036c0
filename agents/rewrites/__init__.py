"""Rewrites: the queries that failing queries should have been."""
