"""Helper processes for work on hostile input: limited in time and memory, replaced when they fail.

    pool.py     the helpers of one kind of work, and who waits for them
    helper.py   one process and the pipes to it
    frames.py   messages on a pipe
    child.py    its own side: limits, then one task after the other

Templates and grammars come from model files and clients, and both are programs: neither the
sandbox of Jinja2 nor the fuel of a grammar compiler bounds all they may take.  What is sent and
answered is JSON, so a helper that was taken over can only give a wrong answer.

May import errors.
"""
