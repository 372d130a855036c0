"""The long horizon: whether people come back, and what the signals of a visit say about it before that is known."""
