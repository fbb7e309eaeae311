"""Runs that go on where a process ended."""
