"""From the store to tables: a pure function."""
