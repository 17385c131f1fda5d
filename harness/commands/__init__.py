"""What each command does, a module each; `harness.cli` reads the arguments and picks the function."""
