"""The contracts: one file per kind, each readable in a minute. None of them imports torch."""
