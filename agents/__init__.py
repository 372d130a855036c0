"""What learns: one package per thing learned. No I/O, no clock, no global randomness."""
