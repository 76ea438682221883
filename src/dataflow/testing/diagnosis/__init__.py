"""Finding out what is wrong, and saying it so that a person can act on it or paste it into an issue.

What lives here, one question each: `setup` (is TDD mode on, which settings hold), `address` (is the URL right),
`connectivity` (does the server answer), `capabilities` (what it can do), `pool` (who holds the connections),
`transaction` and `recovery` (what became of the test's transaction), `infrastructure` (do the parts work
together), `environment` (what is installed here), and `doctor` (all of them).

Every answer is a `Diagnosis` (`model`): a value that is computed by a pure function from facts that a thin
shell has gathered. Nothing here prints, raises for what it was asked to find out, or keeps what it opened.
No event loop and no driver is imported before a question needs one.
"""
