"""From what was measured to findings: the published limits, each with its source.

AHA/ACC/HRS 2009 is the series of recommendations for the interpretation of the electrocardiogram: part III
on conduction (Surawicz, doi:10.1161/CIRCULATIONAHA.108.191095), part IV on ST, T and QT (Rautaharju,
…191096), part V on chambers (Hancock, …191097), part VI on ischaemia (Wagner, …191098). A finding that the
leads, the rhythm or the quality do not allow to judge is left out: it is neither present nor absent.
"""

from bioreport.ecg.criteria.findings import ecg_findings, judge, permits
from bioreport.ecg.criteria.judgement import Judgement
from bioreport.ecg.criteria.territories import TERRITORIES

__all__ = ["TERRITORIES", "Judgement", "ecg_findings", "judge", "permits"]
