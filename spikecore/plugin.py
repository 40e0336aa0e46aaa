"""Core's own hooks. Light on purpose: it is imported whenever hooks are called."""
