"""The truth on disk: the log of committed changes, the manifest, the lock, and what is derived.

Others use `ledger.Ledger`, `manifest.Manifest`, `records`, `disk` (the seam to the system calls),
`lock.WriterLock` and `create`.
"""
