"""The synthetic cohort: torsos with lesions, written as the four real datasets are, so that their readers read it.

What is simulated, and what is not: ``docs/phantom.md``.
"""
