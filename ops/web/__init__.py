"""Shared parts of the servers: access, limits, problem documents, and pages."""
