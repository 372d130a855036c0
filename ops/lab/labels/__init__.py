"""How many misunderstood recordings get the right interpretation from the rephrase that follows."""
