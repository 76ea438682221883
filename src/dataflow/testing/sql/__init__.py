"""Reading SQL as PostgreSQL's lexer does: where tokens are, and where statements end.

Pure, and no parser: what a statement means, and whether it is right, is for others to say. SQL is never changed.
"""
