"""What a test changed in its database, read from the write-ahead log, and how that is undone in place.

The way: `log` reads what was written, `footprint` folds it into rows that came and rows that may have gone,
`questions` asks the database about those that the log alone cannot settle, `plan` decides, `restore` does it.
`footprint` and `plan` are pure. What they go by is the `shape` of the template. Which database a test gets, and
what becomes of one that cannot be restored, is decided in `lease`.
"""
