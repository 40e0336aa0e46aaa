"""Parsers of what comes from outside, fed with mutated files: they raise errors of ours, or none."""
