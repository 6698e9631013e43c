"""Kinds of tasks, one file each: what a head reads, how it is decoded, and what others may rely on in its answers.

Others find them by name in `registry.KINDS` and never compare names.
"""
