"""Summaries of texts of any length: chunks, two workflows, a journal of calls, evidence."""
