"""What the examples of each reference take for granted, a module per face."""
