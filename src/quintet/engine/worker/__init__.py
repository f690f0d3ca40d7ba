"""The engine in a process of its own: a crash ends its requests only, unloading frees all memory.

    messages.py     what the two processes say to each other
    channel.py      how it crosses: two sockets in a private directory
    failures.py     errors as data
    launch.py       the process: started, watched, ended
    child.py        its own side: loads the model, runs the engine
    supervisor.py   keeps one alive
    process.py      EngineProcess, the EngineClient

Loads msgspec and zmq, so nobody imports it before it is used.
"""
