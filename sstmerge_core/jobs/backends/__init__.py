"""Where workers run: on this machine (`local`); others can follow behind the same function."""
