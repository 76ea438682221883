"""Data layers on top of a test's connections, one module for each library; none is imported before it is used.

They know of a test only how it opens a connection; who begins and ends tests is in `isolation`.
"""
