"""The data layers that applications use, one library each; none is imported before it is used.

How their connections come to the databases of tests. Who begins and ends tests is in `isolation`; the side of
pytest is in the plugin.
"""
