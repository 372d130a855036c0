"""What came of turns: feedback is weighed in one place, and every learner reads the same outcomes."""
