"""Candidate generators: the strategies of a search engine, each on a well-kept library."""
