"""The data layers that applications use: how their connections come to the databases of tests.

What is common to all of them lives below; pytest's side of it in the plugin.
"""
