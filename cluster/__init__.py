"""When one machine is not enough: encoding and training on Ray (extra `cluster`).

Encoding: `encode` cuts a source into tasks of some thousand rows, each named by the hash of its
rows and of the encoder. `part` makes one Parquet part of a task, with the rejects in its footer;
`parts` writes it once under that name. So retried, doubled and resumed work ends in the same files.
Parts are equal to the bit with and without Ray where the encoder is `steady`.

Ray: `ray_encode` runs the tasks on an actor pool; names travel, rows and vectors do not. A task
that takes too long ends its worker; after five tries it is named and skipped. `ray_start` starts or
joins Ray without telemetry and dashboard.

Training: `blocks` reads an iterator of vector blocks once into a scratch file. Beyond 200,000 rows
an epoch shuffles by blocks. `ray_train` shares the rows among workers, which average gradients.
"""
