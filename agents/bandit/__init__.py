"""The strategy bandit: which retrieval strategies to ask, and how many candidates from each."""
