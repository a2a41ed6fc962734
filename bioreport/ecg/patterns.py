"""How ECG findings are worded: the patterns that `bioreport.ecg.lexicon` looks for.

The words are those of the statements of AHA, ACC and HRS (Mason et al. 2007,
doi:10.1161/CIRCULATIONAHA.106.180201), of recorders' own readings and of `bioreport.ecg.simulation`.
"""

import re
from typing import NamedTuple

LEAD = r"(?:a?V[RLF]|V[1-6]|I{1,3})"
_IN_LEADS = r"(?: (?:in|over) (?:the )?(?:leads? )?[\w ,/–-]{1,40}?)?"
_IS = r"(?:is|are|was|were)"
_VARY = r"(?:\w+ly |more |slightly |very )?"
_AND = r"(?:\s*(?:,|/|or\b|and\b|nor\b|to\b))+\s*"
_AV = r"(?:A[- ]?V|atrio-?ventricular|heart)\b(?:[- ](?:nodal|conduction))?(?: heart)?[- ]*block\b"
_DEGREE = r"(?:first|second|third|1st|2nd|3rd|[123]\s?°|[123](?=[- ]?degree))"
_BEAT = r"(?:complex(?:es)?|contractions?|beats?|depolari[sz]ations?|extrasystoles?|systoles?)"
_ATRIAL = r"(?:supra[- ]?ventricular|atrial)"
_EITHER = rf"(?:{_ATRIAL}|ventricular)"
_BRANCH = r"bundle[- ]branch block\b"
_ST = r"(?<!non-)(?<!non )\bS-?T(?:[- ]segments?)?"
_LEVEL = r"(?:elevations?|depressions?)"
_T = r"\bT[- ]?waves?"
_QT = r"Q-?T(?:[- ]?c\w{0,2})?(?:\s?/\s?Q-?Tc)?(?:[- ]intervals?)?"
_PR = r"P-?[RQ](?:[- ]intervals?)?"
_INFARCT = r"(?:infarct(?:ion)?s?|(?-i:MI))\b"
_ARTIFACT = r"(?:arti?e?facts?|noise|interference|hum)\b"
_CHANGE = r"(?:changes?|abnormalit(?:y|ies)|alterations?|deviations?|disturbances?)\b"
_LEAD_WORD = r"(?:leads?|electrodes?|cables?)"
_SWAPPED = r"(?:reversed|swapped|switched|interchanged|misplaced|transposed)"

Names = tuple[str, ...]
BLOCKS: Names = ("first_degree_av_block", "second_degree_av_block", "complete_av_block")
_BUNDLES: Names = ("left_bundle_branch_block", "right_bundle_branch_block")
_WIDE: Names = (*_BUNDLES, "intraventricular_conduction_delay")
_ECTOPY: Names = ("premature_atrial_contractions", "premature_ventricular_contractions")
_MASS: Names = ("left_ventricular_hypertrophy", "right_ventricular_hypertrophy")
_AXIS: Names = ("left_axis_deviation", "right_axis_deviation")
_LEVELS: Names = ("st_elevation", "st_depression")
_ST_T: Names = (*_LEVELS, "t_wave_inversion")
_QTS: Names = ("prolonged_qt", "short_qt")
_INFARCTS: Names = ("st_elevation_infarction", "pathological_q_waves")
SIGNAL: Names = ("lead_off", "noisy_lead", "baseline_wander", "mains_interference")


class Wording(NamedTuple):
    """A pattern, the findings it states where it is affirmed, and those that its denial denies."""

    pattern: re.Pattern[str]
    stated: Names
    denied: Names


def _w(stated: str | Names, *patterns: str, denied: str | Names | None = None) -> Wording:
    named = (stated,) if isinstance(stated, str) else stated
    refused = named if denied is None else (denied,) if isinstance(denied, str) else denied
    return Wording(re.compile("|".join(patterns), re.IGNORECASE), named, refused)


# In this order; what one has read the next ones no longer see.
WORDINGS: tuple[Wording, ...] = (
    # infarcts
    _w(
        "st_elevation_infarction",
        r"\b(?:hyper-?)?(?:acute|recent|evolving|ongoing|new)[ -]"
        rf"(?:(?!old\b|prior\b|and\b|with\b|no\b|age\b)[\w/-]+[ -]){{0,5}}?(?:{_INFARCT}"
        rf"|injury\b)(?: pattern)?",
        rf"{_ST}[- ]*elevation[- ](?:acute )?(?:myocardial )?{_INFARCT}(?: pattern)?",
        r"\bSTEMI\b|\bcurrent of injury|\binjury (?:current|pattern)|\bacute coronary (?:occlusion|syndrome)"
        r"|\bheart attack",
    ),
    # rhythm
    _w(("sinus_rhythm", "bradycardia", "sinus_arrhythmia"), r"\bsinus brady-?arr?h?ythmia"),
    _w(("sinus_rhythm", "tachycardia"), r"\bsinus tach(?:y(?:cardia)?)?\b", denied="tachycardia"),
    _w(("sinus_rhythm", "bradycardia"), r"\bsinus brady(?:cardia)?\b", denied="bradycardia"),
    _w(("sinus_rhythm", "sinus_arrhythmia"), r"\bsinus arr?hythmia", denied="sinus_arrhythmia"),
    _w("sinus_rhythm", r"\bsinus (?:rhythm|mechanism)\b|\bNSR\b|\brhythm (?:is|was) (?:\w+ )?sinus\b"),
    _w(
        "supraventricular_tachycardia",
        r"\bsupra[- ]?ventricular tachy(?:cardia|arr?hythmia)|\bP?SVT\b|\bAVN?RT\b"
        r"|\bA-?V(?: |-)?(?:nodal )?(?:re-?entr\w+|reciprocating) tachycardia|\b(?:atrial"
        r"|junctional) tachycardia"
        r"|\bnarrow[- ](?:QRS[- ]|complex[- ])(?:complex )?tachycardia",
    ),
    _w(
        "ventricular_tachycardia",
        r"\bventricular tachycardia|\b(?:NS)?VT\b|\bV[- ]?tach\b|\b(?:wide|broad)[- ](?:QRS[- ]|complex[- ])"
        r"(?:complex )?tachycardia|\bruns? of ventricular beats|\btorsades?\b",
    ),
    _w("ventricular_fibrillation", r"\bventricular (?:fibrillation|flutter)|\bV-?fib\b|\bVF\b"),
    _w(
        ("atrial_fibrillation",),
        r"\batrial (?:fibrillation|flutter)(?:/| (?:or|and|nor) )(?:atrial )?(?:fibrillation|flutter)",
        denied=("atrial_fibrillation", "atrial_flutter"),
    ),
    _w("atrial_fibrillation", r"\batrial fib(?:rillation)?\b|\ba[- .]{0,2}fib\b|\bAF(?:ib)?\b"),
    _w("atrial_flutter", r"(?<!ventricular )\b(?:atrial |a[- ])?flutter\b|\bAFL\b"),
    _w("lead_off", rf"\bflat[- ]?line (?:in|on) (?:leads? )?{LEAD}\b"),
    _w("asystole", r"\basystol\w+|\b(?:ventricular|cardiac) standstill|\bflat-?line\b"),
    _w("pause", r"\b(?:sinus )?pauses?\b|\bsinus arrest|\blong R-?R (?:interval|cycle)s?"),
    _w(
        "paced_rhythm",
        r"\b(?:(?:AV|A-V|atrial|ventricular|dual[- ]chamber|biventricular|electronic(?:ally)?)[- ,]{1,2})+"
        r"(?:sequential(?:ly)?[- ])?(?:paced|pacing|pacemaker)\b(?: (?:rhythm|spikes?|beats?|complexes))?",
        r"\b(?:paced|pacing|pacemaker)[- ](?:ventricular |QRS )?(?:rhythm|spikes?|stimul\w+|arti?e?facts?"
        r"|beats?|complexes)"
        r"|(?<!junctional )\bpacemaker\b",
    ),
    # conduction between atria and ventricles: see `bioreport.ecg.lexicon` for the degrees
    _w(
        "complete_av_block",
        rf"\bcomplete {_AV}|\b{_AV},? complete\b|(?-i:\bCHB\b)|\bA-?V dissociation"
        rf"|\batrio-?ventricular dissociation"
        r"|\bno P[- ]waves? (?:is|are) conducted|\bP waves and QRS complexes are (?:independent|dissociated)",
    ),
    _w(
        "second_degree_av_block",
        rf"\bwenckebach\w*|\bmobitz\b|\b(?:2|two)[:-](?:1|to-one) {_AV}|\b(?:high[- ](?:grade|degree)"
        rf"|advanced) {_AV}",
    ),
    _w(
        "first_degree_av_block",
        rf"\b(?:prolonged|long|lengthened)[- ]{_PR}\b|\b{_PR} {_IS}? ?{_VARY}(?:prolonged|lengthened|long)\b"
        rf"|\b{_PR}[- ]prolong\w+|\bprolongation of (?:the )?{_PR}\b",
    ),
    _w((), rf"\b{_AV}s?", denied=BLOCKS),
    # ectopic beats
    _w(
        _ECTOPY,
        rf"\b(?:premature )?{_EITHER}(?: (?:or|and|nor) |/){_EITHER} (?:premature |ectopic )*(?:{_BEAT}"
        rf"|ectopy)",
    ),
    _w(
        _ECTOPY[0],
        rf"\bpremature {_ATRIAL} {_BEAT}|\b{_ATRIAL} (?:premature |ectopic )+{_BEAT}"
        rf"|\b{_ATRIAL} (?:extrasystol\w+|ectop\w+(?! rhythm| pacemaker)|couplets?|bigemin\w+|trigemin\w+)"
        r"|\b(?:PACs?|APCs?|APBs?|PABs?|SVES|SVPBs?|PSVCs?)\b",
    ),
    _w(
        _ECTOPY[1],
        rf"\bpremature ventricular {_BEAT}|\bventricular (?:premature |ectopic )+{_BEAT}"
        r"|\bventricular (?:extrasystol\w+|ectop\w+(?! rhythm)|couplets?|bigemin\w+|trigemin\w+)"
        r"|\bpremature ventricular (?:and/)?or aberrantly conducted complexes|\bectopic ventricular beats?"
        r"|\b(?:PVCs?|VPCs?|VPBs?|PVBs?|VES)\b",
    ),
    _w(
        (),
        rf"\becto(?:py|pics?|pic (?:beats?|complexes|activity))\b|\bextrasystoles?\b"
        rf"|\bpremature (?:ectopic )?{_BEAT}",
        denied=_ECTOPY,
    ),
    # conduction within the ventricles
    _w(
        "incomplete_right_bundle_branch_block",
        rf"\b(?:incomplete|partial) (?:right {_BRANCH}|right bundle[- ]branch conduction\b|RBBB\b)|\bIRBBB\b"
        rf"|\b(?:right {_BRANCH}|RBBB),? \(?incomplete\b|\br?rsr(?:['’´`′]| prime)?(?![\w])(?: (?:pattern"
        rf"|complex\w*))?"
        r"|\bright ventricular conduction delay",
    ),
    _w((), rf"\b(?:incomplete|partial) (?:left {_BRANCH}|LBBB\b)|\bILBBB\b"),
    _w(_BUNDLES, rf"\b(?:left|right)(?: (?:or|and|nor) |/)(?:left|right) {_BRANCH}"),
    _w("right_bundle_branch_block", rf"\b(?:complete )?(?:right {_BRANCH}|C?RBBB\b)"),
    _w("left_bundle_branch_block", rf"\b(?:complete )?(?:left {_BRANCH}|C?LBBB\b)"),
    _w((), rf"\b{_BRANCH}s?", denied=_BUNDLES),
    _w(
        "left_anterior_fascicular_block",
        r"\bleft anterior (?:fascicular|hemi)[- ]?block|\bLAFB\b|\bLAHB\b",
    ),
    _w((), r"\bleft posterior (?:fascicular|hemi)[- ]?block"),
    _w((), r"\b(?:fascicular|hemi)[- ]?blocks?\b", denied="left_anterior_fascicular_block"),
    _w(
        "intraventricular_conduction_delay",
        r"\bintra-?ventricular (?:conduction )?(?:delay|defect|disorder|disturbance|block)|\bIVC[DB]\b"
        r"|\bI\.?V\.? (?:conduction )?(?:delay|defect|block)"
        r"|\bnon-?specific (?:ventricular conduction (?:delay|defect)|QRS widening)",
    ),
    _w((), r"\bconduction (?:delays?|defects?|abnormalit\w+|disturbances?|blocks?)", denied=_WIDE),
    # axis
    _w(
        _AXIS[0],
        r"\bleft(?:ward)?[- ](?:QRS[- ])?axis(?:[- ](?:deviation|shift))?|(?-i:\bLAD\b)"
        rf"|\baxis {_IS}? ?{_VARY}(?:deviat\w+ |shifted |directed )?(?:to the )?left(?:ward)?\b",
    ),
    _w(
        _AXIS[1],
        r"\bright(?:ward)?[- ](?:QRS[- ]|superior[- ])?axis(?:[- ](?:deviation|shift))?|(?-i:\bRAD\b)"
        rf"|\baxis {_IS}? ?{_VARY}(?:deviat\w+ |shifted |directed )?(?:to the )?right(?:ward)?\b"
        r"|\b(?:extreme|northwest|superior)[- ](?:QRS[- ])?axis(?: deviation)?",
    ),
    _w((), r"\baxis (?:deviation|shift)", denied=_AXIS),
    # chambers
    _w(
        _MASS,
        r"\b(?:left|right)(?: (?:or|and|nor) |/)(?:left|right) ventricular hypertrophy"
        r"|\bbiventricular hypertrophy",
    ),
    _w(
        _MASS[0],
        r"\b(?:left ventricular|LV) (?:hypertrophy|high voltages?)|\bLVH\b"
        r"|\b(?:high|increased|large) (?:(?:QRS|left ventricular|LV|precordial) )*(?:voltages?|amplitudes?)"
        rf"|\bvoltages? {_IS} {_VARY}high\b",
    ),
    _w(_MASS[1], r"\b(?:right ventricular|RV) hypertrophy|\bRVH\b"),
    _w((), r"(?<!atrial )(?<!septal )\b(?:ventricular )?hypertrophy", denied=_MASS),
    _w(
        "low_qrs_voltage",
        r"\b(?:low|reduced)[- ](?:(?:QRS|limb[- ]lead|chest[- ]lead|precordial|peripheral|frontal"
        r"|extremity)[- ])*"
        rf"voltages?|\bvoltages? {_IS} {_VARY}(?:low|reduced)\b|\bmicro-?voltage"
        rf"|\bQRS amplitudes? {_IS} {_VARY}(?:low|reduced)\b"
        r"|\b(?:low|reduced)[- ](?:QRS[- ]amplitudes?|amplitude[- ]QRS)|\bsmall QRS complexes",
    ),
    # ST, T, Q
    _w(_LEVELS, rf"\b{_ST}[- ]*{_LEVEL} and (?:S-?T(?:[- ]segments?)?[- ]*)?{_LEVEL}"),
    _w((), rf"\b{_ST}[- ]*{_LEVEL}{_AND}(?:S-?T(?:[- ]segments?)?[- ]*)?{_LEVEL}", denied=_LEVELS),
    _w(
        _ST_T[0],
        rf"{_ST}[- ]*(?:(?!or\b|and\b|depress)\w+[- ])?elevations?|\belevated ST|\belevations? of (?:the )?ST"
        rf"|{_ST}{_IN_LEADS} {_IS} {_VARY}elevated|{_ST} shows? (?:[\w.]+ ){{0,3}}?elevation|(?-i:\bSTE\b)",
    ),
    _w(
        _ST_T[1],
        rf"{_ST}[- ]*(?:(?!or\b|and\b|elevat)\w+[- ])?depressions?|\bdepressed ST"
        rf"|\bdepressions? of (?:the )?ST"
        rf"|{_ST}{_IN_LEADS} {_IS} {_VARY}depressed|{_ST} shows? (?:[\w.]+ ){{0,3}}?depression|(?-i:\bSTD\b)"
        r"|\breciprocal depressions?",
    ),
    _w(
        _ST_T[2],
        rf"{_T}[- ](?:(?!or\b|and\b)\w+[- ])?inversions?|\b(?:inverted|negative"
        rf"|flipped) (?:\w+ )?T\b(?:[- ]waves?)?"
        rf"|{_T}{_IN_LEADS} {_IS} {_VARY}(?:inverted|negative|flipped)|\bTWI\b|\bT[- ]inversions?"
        rf"|\binversions? of (?:the )?T\b",
    ),
    _w(
        (),
        rf"\bST(?:-|/| segments?(?: and| or|/) | and | or "
        rf"| & )T\b(?:[- ]waves?)?(?:[- ]segments?)?[- ](?:\w+ )?{_CHANGE}"
        rf"|\brepolari[sz]ation {_CHANGE}",
        denied=_ST_T,
    ),
    _w((), rf"{_ST}[- ](?:\w+ )?{_CHANGE}", denied=_LEVELS),
    _w((), rf"{_T}[- ](?:\w+ )?{_CHANGE}|\bT {_CHANGE}", denied="t_wave_inversion"),
    _w((), rf"\bischa?emi\w+|\bacute (?:\w+ )?{_CHANGE}|\binjury\b", denied="st_elevation_infarction"),
    _w(
        "pathological_q_waves",
        r"(?:\b(?:pathologic(?:al)?|significant|abnormal|deep|diagnostic|new) )?\bQ[- ]?waves?\b"
        r"|\bQS (?:complex\w*|pattern|waves?)",
    ),
    # QT
    _w(
        _QTS[0],
        rf"\b(?:prolonged|long|lengthened)[- ](?:corrected )?{_QT}\b|\b{_QT} {_IS}? ?{_VARY}(?:prolonged"
        rf"|lengthened|long)\b"
        rf"|\b{_QT}[- ]prolong\w+|\bprolongation of (?:the )?(?:corrected )?{_QT}\b",
    ),
    _w(
        _QTS[1],
        rf"\b(?:short|shortened)[- ](?:corrected )?{_QT}\b|\b{_QT} {_IS}? ?{_VARY}(?:short|shortened)\b"
        rf"|\b{_QT}[- ]shortening",
    ),
    # rate, where no name of a rhythm has taken the word
    _w(
        "tachycardia",
        r"\btachycardi\w+|\brapid (?:ventricular )?(?:response|rate)|\bRVR\b|\b(?:fast|rapid) heart rate"
        r"|\brate (?:is|was) (?:\w+ )?(?:fast|rapid|high)\b",
    ),
    _w(
        "bradycardia",
        r"\bbradycardi\w+|\bslow (?:ventricular |heart )(?:response|rate)|\brate (?:is"
        r"|was) (?:\w+ )?(?:slow|low)\b",
    ),
    # the recording
    _w((), r"\b(?:precordial|chest)[- ](?:leads?|electrodes?)[- ](?:reversal|misplacement|swap)"),
    _w(
        "limb_lead_reversal",
        rf"\b(?:(?:limb|arm|leg|RA|LA|LL)[- /]*)*\b(?:{_LEAD_WORD}|arm|limb|RA|LA|LL)[- ]"
        r"(?:reversal|swap\w*|switch|interchange|misplacement|transposition)\b",
        rf"\b{_SWAPPED} (?:(?:limb|arm|leg) )*{_LEAD_WORD}",
        rf"\b(?:limb|arm|leg)[- ]{_LEAD_WORD} (?:(?:are|were|have been) )?(?:\w+ )?{_SWAPPED}",
    ),
    _w(
        "lead_off",
        rf"\bleads?[- ]off\b|\b(?:flat|disconnected|detached|loose|missing) {_LEAD_WORD}"
        rf"|\b{_LEAD_WORD}\b[^.;]{{0,60}}? {_IS} (?:off|flat|disconnected|detached|missing"
        rf"|without (?:a )?signal|not connected)\b"
        rf"|\b{_LEAD_WORD}(?: {LEAD})? (?:disconnected|detached|not connected)\b|\bno signal (?:in|from|at"
        rf"|on)\b|\b{_LEAD_WORD} without (?:a )?signal",
    ),
    _w(
        "baseline_wander",
        r"\bbase-?line (?:wander\w*|drift\w*|sway\w*|instability|shifts?|fluctuations?|arti?e?facts?)"
        rf"|\b(?:wandering|drifting|unstable) base-?line|\bbase-?line {_IS} {_VARY}(?:wandering|drifting"
        rf"|unstable)",
    ),
    _w(
        "mains_interference",
        rf"\b(?:mains|AC|alternating[- ]current|power[- ]?line|line|electrical|[56]0[- ]?(?:Hz"
        rf"|cycles?))[- ]{_ARTIFACT}",
    ),
    _w(
        "noisy_lead",
        rf"\bnoisy (?:\w+ )?(?:{_LEAD_WORD}|recording|signals?|tracing|channels?)"
        rf"|\b(?:muscle|motion|movement|EMG|myogenic|tremor|electrode)[- ]{_ARTIFACT}|\bmuscle tremor"
        rf"|\b{_LEAD_WORD}\b[^.;]{{0,60}}? {_IS} {_VARY}noisy\b|\bpoor (?:(?:signal|data|tracing|recording"
        rf"|technical) )?quality"
        rf"|\b(?:arti?e?facts?|noise) (?:in|on) (?:leads? )?{LEAD}\b",
    ),
    _w((), r"\barti?e?facts?\b", denied=("noisy_lead", "baseline_wander", "mains_interference")),
)  # fmt: skip

# What calls a part normal denies these.
NORMALS: tuple[tuple[re.Pattern[str], Names], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), names)
    for pattern, names in (
        (r"\bnormal sinus rhythm|\bNSR\b|\bnormal (?:heart "
            r"|ventricular )?rate\b", ("bradycardia", "tachycardia")),
        (
            r"\bnormal (?:(?:QRS|frontal|plane|electrical|heart|cardiac|mean) )*axis\b"
            rf"|(?<!P )(?<!T )(?<!P-wave )(?<!T-wave )\baxis (?:{_IS} )?(?:within )?normal\b",
            _AXIS,
        ),
        (
            rf"\b(?:normal|unremarkable) (?:ST(?:[- ]segments?)?(?: and |/|-))?T(?:[- ]?waves?)?\b"
            rf"|\bT[- ]?waves? (?:{_IS} )?{_VARY}(?:normal|upright|unremarkable)\b",
            ("t_wave_inversion",),
        ),
        (
            r"\b(?:normal|unremarkable|isoelectric) ST\b"
            rf"|\bST(?:[- ]segments?)?(?:(?: and |/|-)T(?:[- ]?waves?)?)? (?:{_IS} )?{_VARY}(?:normal"
            rf"|isoelectric|unremarkable)\b",
            _LEVELS,
        ),
        (rf"\bvoltages? (?:{_IS} )?normal\b|\bnormal (?:QRS )?voltages?\b", (*_MASS, "low_qrs_voltage")),
        (
            rf"\bQRS(?: complex(?:es)?| morphology)? (?:{_IS} )?(?:unremarkable|normal)\b"
            rf"|\bnormal QRS(?: complex(?:es)?| morphology)?\b"
            r"(?! axis| voltage)",
            (*_WIDE, *_MASS, "low_qrs_voltage", "pathological_q_waves"),
        ),
        (rf"\bnarrow QRS\b|\bQRS(?: complexes)? (?:{_IS} )?narrow\b"
            rf"|\bQRS duration (?:{_IS} )?normal\b", _WIDE),
        (rf"\bnormal {_PR}|\b{_PR} (?:{_IS} )?(?:within )?normal\b", BLOCKS[:1]),
        (rf"\bnormal (?:corrected )?{_QT}|\b{_QT} (?:{_IS} )?(?:within )?normal\b", _QTS),
        (rf"\bnormal intervals\b|\bintervals (?:{_IS} )?(?:within )?normal\b", (BLOCKS[0], *_QTS, *_WIDE)),
        (r"\bnormal A-?V conduction\b|\bA-?V conduction (?:is )?normal\b", BLOCKS),
        (
            rf"\b(?:good|excellent) (?:(?:signal|technical|recording|tracing) )?quality"
            rf"|\bquality (?:{_IS} )?(?:good|excellent)"
            r"|\btechnically (?:satisfactory|good)",
            SIGNAL,
        ),
    )
)  # fmt: skip

DEGREES = re.compile(
    rf"\b{_DEGREE}(?:[- ]?degree|-)?(?:{_AND}{_DEGREE}(?:[- ]?degree|-)?)*[- ]*{_AV}"
    rf"|\b{_AV},? (?:of )?(?:the )?{_DEGREE}[- ]?(?:degree)?",
    re.IGNORECASE,
)
DEGREE = re.compile(_DEGREE, re.IGNORECASE)
INFARCT = re.compile(
    rf"(?P<old>\b(?:old|prior|previous|remote|chronic|healed)\b (?:[\w-]+ ){{0,3}}?)?\b{_INFARCT}"
    r"(?:[,( –-]{1,3}(?P<doubt>possibly |probably |likely )?(?P<late>acute|recent)\b)?",
    re.IGNORECASE,
)
INFARCTS = _INFARCTS
# no statement about the recording, or none of a finding
NEVER = re.compile(
    r"\bnon-?S-?T(?:[- ]segment)?[- ]elevation(?: (?:myocardial )?infarct(?:ion)?| MI)?|\bNSTEMI\b"
    r"|(?-i:\bLAD) (?:artery|territory|occlusion|stenosis|lesion|distribution)\b|\b(?:proximal|mid"
    r"|distal) (?-i:LAD\b)"
    r"|\bwandering atrial pacemaker|\bcompensatory pauses?"
    r"|\b(?:septal|small|insignificant|physiologic(?:al)?|non-?pathologic(?:al)?|non-?significant"
    r"|normal) Q[- ]?waves?"
    r"|\b[56]0[- ]?Hz notch\w*|\b(?:line|mains|baseline|muscle|AC) (?:noise )?filter\w*"
    r"|\brisk of (?:\w+ )?\w+ ?\w*",
    re.IGNORECASE,
)
