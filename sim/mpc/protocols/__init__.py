"""What each function of a protocol exchanges, in closed forms."""
