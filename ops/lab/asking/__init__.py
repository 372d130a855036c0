"""What asking people brings, and what it costs, in a simulated loop."""
