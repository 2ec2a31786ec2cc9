"""Exact search: build an index of any text, and ask it anything that counting can answer."""
