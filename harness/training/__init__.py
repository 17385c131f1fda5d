"""Training: the host of methods, and the adapters that execute them. Imported by workers only (it loads torch)."""
