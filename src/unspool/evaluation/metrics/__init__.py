"""Metrics with the exact arithmetic of the original releases.

Pure functions from strings to numbers; each module names the package and version whose numbers it
reproduces to the last bit. None of those packages is needed, except jieba for Chinese words.
"""
