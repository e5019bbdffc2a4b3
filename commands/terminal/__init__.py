"""What is drawn on a terminal: the evidence card, tables, progress."""
