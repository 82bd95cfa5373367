"""The diagnosis codes behind the comorbidity scores and the explicit sepsis diagnosis.

Why Python: a constant travels in the wheel and in the Flower bundle, and a test can compare it; the
queries in ``client/sql`` read these as small tables. Codes are prefixes, upper case, without dots: a
diagnosis meets a condition when its code of the same ICD version starts with one of them.

Sources: Quan et al., Med Care 2005;43:1130 (Charlson, enhanced ICD-9-CM and ICD-10); MIT-LCP/mimic-code,
``mimic-iv/concepts/comorbidity/charlson.sql`` and ``score/sapsii.sql``, restated.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A diagnosis by name and the prefixes of its ICD-9-CM (``icd9``) and ICD-10 (``icd10``) codes."""

    name: str
    icd9: tuple[str, ...]
    icd10: tuple[str, ...]

    @property
    def prefixes(self) -> list[tuple[int, str]]:
        """ICD version and prefix of each."""
        return [(9, prefix) for prefix in self.icd9] + [(10, prefix) for prefix in self.icd10]


def _prefixes(text: str) -> tuple[str, ...]:
    """Read prefixes as the sources print them: apart by blanks, ``I60-I69`` for all ten from I60 to I69."""
    return tuple(prefix for word in text.split() for prefix in _expand(word))


def _expand(word: str) -> Iterable[str]:
    first, _, last = word.partition("-")
    if not last:
        return (first,)
    letter = first.rstrip("0123456789")
    digits = len(first) - len(letter)
    numbers = range(int(first[len(letter) :]), int(last[len(letter) :]) + 1)
    return (f"{letter}{number:0{digits}d}" for number in numbers)


def _condition(name: str, icd9: str, icd10: str) -> Condition:
    return Condition(name=name, icd9=_prefixes(icd9), icd10=_prefixes(icd10))


# Quan's own lists of 2005: codes that ICD-10-CM gained since (C4A, C7A, C86) meet no condition.
CHARLSON: tuple[Condition, ...] = (
    _condition("myocardial_infarct", "410 412", "I21 I22 I252"),
    _condition(
        "congestive_heart_failure",
        "428 39891 40201 40211 40291 40401 40403 40411 40413 40491 40493 4254-4259",
        "I43 I50 I099 I110 I130 I132 I255 I420 I425-I429 P290",
    ),
    _condition(
        "peripheral_vascular_disease",
        "440 441 0930 4373 4471 5571 5579 V434 4431-4439",
        "I70 I71 I731 I738 I739 I771 I790 I792 K551 K558 K559 Z958 Z959",
    ),
    _condition("cerebrovascular_disease", "430-438 36234", "G45 G46 I60-I69 H340"),
    _condition("dementia", "290 2941 3312", "F00-F03 G30 F051 G311"),
    _condition(
        "chronic_pulmonary_disease",
        "490-505 4168 4169 5064 5081 5088",
        "J40-J47 J60-J67 I278 I279 J684 J701 J703",
    ),
    _condition(
        "rheumatic_disease",
        "725 4465 7100-7104 7140-7142 7148",
        "M05 M06 M32-M34 M315 M351 M353 M360",
    ),
    _condition("peptic_ulcer_disease", "531-534", "K25-K28"),
    _condition(
        "mild_liver_disease",
        "570 571 0706 0709 5733 5734 5738 5739 V427 07022 07023 07032 07033 07044 07054",
        "B18 K73 K74 K700-K703 K709 K713-K715 K717 K760 K762-K764 K768 K769 Z944",
    ),
    _condition(
        "diabetes_without_cc",
        "2500-2503 2508 2509",
        # E101 stands as 'E10l' (the letter) in mimic-code, a misprint: Quan lists E10.1.
        "E100 E101 E106 E108 E109 E110 E111 E116 E118 E119 E120 E121 E126 E128 E129 "
        "E130 E131 E136 E138 E139 E140 E141 E146 E148 E149",
    ),
    _condition(
        "diabetes_with_cc",
        "2504-2507",
        "E102-E105 E107 E112-E115 E117 E122-E125 E127 E132-E135 E137 E142-E145 E147",
    ),
    _condition("paraplegia", "342 343 3341 3440-3446 3449", "G81 G82 G041 G114 G801 G802 G830-G834 G839"),
    _condition(
        "renal_disease",
        "582 585 586 V56 5880 V420 V451 5830-5837 40301 40311 40391 40402 40403 40412 40413 40492 40493",
        "N18 N19 I120 I131 N032-N037 N052-N057 N250 Z490-Z492 Z940 Z992",
    ),
    _condition(
        "malignant_cancer",
        # 173 and C44, cancer of the skin, are left out. 174.0 to 195.8 holds three-digit codes (179, 185).
        "140-172 174-194 1950-1958 200-208 2386",
        "C43 C88 C00-C26 C30-C34 C37-C41 C45-C58 C60-C76 C81-C85 C90-C97",
    ),
    _condition(
        "severe_liver_disease",
        "4560-4562 5722-5728",
        "I850 I859 I864 I982 K704 K711 K721 K729 K765-K767",
    ),
    _condition("metastatic_solid_tumor", "196-199", "C77-C80"),
    _condition("aids", "042-044", "B20-B22 B24"),
)

# The chronic diseases of SAPS II (Le Gall et al., JAMA 1993), coded as mimic-code does: among the leukemias
# without 205.3 (myeloid sarcoma) and 207.1 (chronic erythremia).
SAPSII_CONDITIONS: tuple[Condition, ...] = (
    _condition("aids", "042-044", "B20-B22 B24"),
    _condition(
        "hematologic_malignancy",
        "200-204 2050-2052 2058 2059 206 2070 2072-2079 208 2386 2733",
        "C81-C96",
    ),
    _condition("metastatic_cancer", "196-198 1990 1991 20970-20975 20979 78951", "C77-C79 C800"),
)

# Explicit sepsis: the coder wrote sepsis, severe sepsis or septic shock. Septicemia (ICD-9-CM 038) alone is
# left out: in ICD-9-CM it names germs in the blood, and sepsis needs 995.91 or 995.92 beside it. ICD-10-CM has
# no such pair: A40 and A41 are sepsis by title. T8144 follows a procedure, T8112 is septic shock after one;
# then come the codes of sepsis by one organism (salmonella, anthrax, erysipelas, listeria, actinomyces,
# gonococcus, candida).
SEPSIS: Condition = _condition(
    "sepsis",
    "99591 99592 78552",
    "A40 A41 R6520 R6521 T8144 T8112 A021 A227 A267 A327 A427 A5486 B377",
)
