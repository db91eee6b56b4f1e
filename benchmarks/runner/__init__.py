"""The harness: which runs there are, how each is trained, where its record lies."""
