"""From a matrix to what has to be done: cells, steps with their keys, what of them is pending. Nothing runs here."""
