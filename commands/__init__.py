"""The commands, by what they are for: each parses, calls one library method, prints."""
