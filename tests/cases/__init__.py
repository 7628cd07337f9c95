"""Inputs that people have, each right or refused in one line, by Python, command line and page alike."""
