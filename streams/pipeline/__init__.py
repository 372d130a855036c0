"""From turns to published versions: learning, commits, publishing and what is done around them."""
