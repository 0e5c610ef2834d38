"""Model cards from measurements."""
