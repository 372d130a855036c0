"""Learning from turns that people have labelled: sums over features of the labelled turns, and of all turns."""
