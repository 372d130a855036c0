"""Candidate generators: the strategies of a search engine, built on well-kept libraries."""
