"""A search side to learn on: corpora, candidate generators, and the loop closed on them. Start with `harness`."""
