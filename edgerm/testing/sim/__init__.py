"""The simulator: real cores of master, agents and SDK in one process, on virtual time, from one seed.

Authors test their schedulers in it: make a `Simulation`, `add` the scheduler, `run`. It loses, delays, doubles and
reorders messages, crashes programs, cuts power and sets clocks wrong; then it lets everything come to rest and checks
that each task has one end, that its framework knows it, and that nothing leaked.
"""

from edgerm.testing.sim.network import Faults
from edgerm.testing.sim.simulation import Plan, Simulation

__all__ = ["Faults", "Plan", "Simulation"]
