"""The nightly gate: what a night measured is kept, compared with the accepted night, and told in one sentence."""
