"""Simulated 12-lead ECG with known findings, and the reports that state them.

Our own model: beats are sums of short waves with exact beginnings and ends over a lead field, rhythms are
sequences of atrial and ventricular events. (McSharry et al. 2003, doi:10.1109/TBME.2003.808805, and the
generators after it give one shape of beat, and no truth about intervals, conduction or territories.) They are
no patient's data.
"""

from bioreport.ecg.simulation.record import EcgSimulation, TrueBeat, simulate_ecg
from bioreport.ecg.simulation.writing import write_record

__all__ = ["EcgSimulation", "TrueBeat", "simulate_ecg", "write_record"]
