"""From suites to requests, and from stored responses to scores."""
