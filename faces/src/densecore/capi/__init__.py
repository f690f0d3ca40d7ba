"""What stands behind densecore.h: engines that answer through callbacks, and their exports to C.

`python -m densecore.build_library` makes libdensecore.so of it.
"""
