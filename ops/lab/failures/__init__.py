"""How well failure points are told, on public dialogues."""
