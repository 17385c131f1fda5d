"""Runners: what launches jobs. They launch commands and nothing else; the store is the truth in all of them."""
