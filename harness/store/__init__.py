"""The store: finished steps in a folder, addressed by content. `store.py` says how it is laid out."""

from harness.store.attempt import Attempt
from harness.store.claims import Busy
from harness.store.record import Record
from harness.store.store import RUNS, Done, Ended, Store

__all__ = ["RUNS", "Attempt", "Busy", "Done", "Ended", "Record", "Store"]
