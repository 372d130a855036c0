"""Labels: which turns people should label next, and turns with what was learned, to train others."""
