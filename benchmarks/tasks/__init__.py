"""One file a benchmark: SPEC (what it is), TWIN (its synthetic stand-in or None), prepare and arrange. No torch."""
