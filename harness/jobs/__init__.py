"""From what is pending to jobs: the driver launches them, workers do their steps, and progress is shown."""
