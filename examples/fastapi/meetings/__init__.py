"""Rooms for meetings, and who has them when: a small application of FastAPI and SQLAlchemy.

It knows nothing of the tests.
"""
