"""The truth on disk: the log of committed changes, the manifest, the lock, and what is derived.

Others use `ledger.Ledger`, `manifest.Manifest`, `records`, `disk` (the seam to the system calls),
`lock.WriterLock` and `create`.

One writer, any number of readers. The kernel drops the writer's lock when its process dies. Readers
take no lock: they read the log up to its last whole frame. Nobody holds `catalog.duckdb` open; each
handle works on a copy in memory.

After a crash the next writer cuts off what stands behind the last whole frame. A bad frame with a
good one after it is damage and is reported. So is a log that ends before the last acknowledged
frame, which `TIP` remembers; `TIP` is never synced and safe to lose.

A failed write blocks further writes through its handle until the shelf is opened again. A failed
fsync must not be tried again, since the kernel may have dropped the pages.

The manifest names the format version; `migrations` has a numbered step from each older one.
"""
