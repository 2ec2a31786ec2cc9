"""One web service: exact search, OpenAI-compatible answers, and a page for people."""
