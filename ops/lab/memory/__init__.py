"""`backchannel memory evaluate|guesses|converge`: experiments with the memory index."""
