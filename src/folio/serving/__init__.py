"""Serves a run over HTTP with OpenAI's API: requests join a running batch; and the page to write
on.
"""
