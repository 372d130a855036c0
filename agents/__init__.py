"""What learns: one module per thing learned. No I/O, no clock, no global randomness."""
