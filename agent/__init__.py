"""Decides, stores, talks to the user: the command line, the graph, the database, review, export and report."""
