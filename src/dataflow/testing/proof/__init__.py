"""Whether something was committed while a test ran whose work is rolled back, what, and how that is undone.

`horizon` is what one question to the server tells; only if something was committed anywhere on it,
`witness` reads the log. How a whole database is replaced is the business of `lease`.
"""
