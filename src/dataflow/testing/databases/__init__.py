"""The databases of a process for tests that really commit: template, copies, and who has which. Composition only.

`access` has them made at the first need; `of_process` is what there is then; `server` is a server with them. What
happens in a database is the business of `lease` and `reset`; how its schema comes to be, of `template`.
"""
