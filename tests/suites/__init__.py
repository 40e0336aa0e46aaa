"""Runs every suite of tests, each in an environment that holds only what it is about; then one closing report."""
