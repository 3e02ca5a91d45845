"""The keeper as a program: `python -I -S PATH/TO/keeper DIR NAME …`; see `program`."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # -I and -S leave only the standard library on the path; nothing beside edgerm_agent.keeper is imported from here.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120

    import ctypes
    import resource

    from edgerm_agent.keeper.processes import Processes
    from edgerm_agent.keeper.program import run

    PR_SET_CHILD_SUBREAPER = 36
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # three pipes a task
    sys.exit(run(sys.argv[1:], Processes))
