"""The synthetic cohort: torsos with lesions, in the files of the four real datasets, for their own readers.

``docs/phantom.md`` says what is simulated and what is not.
"""
