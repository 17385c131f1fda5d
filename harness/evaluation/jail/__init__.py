"""What runs inside the sandbox's processes: isolation, the candidate's side and the checker's side.

These modules are started by path in a bare interpreter, so they import nothing but each other and a few modules of the
standard library. They never see the parent's memory, environment or files.
"""
