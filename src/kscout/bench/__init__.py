"""Suites: masks by reconstructors by seeds on equal terms, audited before a number is printed."""
