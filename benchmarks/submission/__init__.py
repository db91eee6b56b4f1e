"""Results from elsewhere: read without trust, held against the suite's own rules, merged whole or not at all."""
