"""What Floodgate is run with: the local stack, examples, decisions."""
