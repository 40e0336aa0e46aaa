"""`make site`: the documentation as a web site."""
