"""What travels: events, the turn they make up, and the policy snapshot. No I/O, and nothing of ours is imported."""
