"""How well satisfaction is predicted, on public dialogues."""
