"""A search engine to learn on: corpora, candidate generators, and the closed loop over them. Start with `harness`."""
