"""The databases of a process for tests that really commit: template, copies, and who has which. Composition only.

What happens in a database is the business of `lease` and `reset`; how its schema comes to be, of `template`.
"""
