"""How well it is told where goals begin, on public dialogues."""
