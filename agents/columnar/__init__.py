"""Closed turns as columns, on which the judge and the learners work: made from events, with strings as codes."""
