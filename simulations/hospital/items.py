"""MIMIC-IV's item dictionaries, as far as the synthetic hospitals use them: ``d_items`` and ``d_labitems``."""

import numpy as np

from simulations.hospital.mimic_csv import Column, labels

# itemid: label, abbreviation, table, category, unit, kind of parameter
ITEMS: dict[int, tuple[str, str, str, str, str | None, str]] = {
    220045: ("Heart Rate", "HR", "chartevents", "Routine Vital Signs", "bpm", "Numeric"),
    220050: ("Arterial Blood Pressure systolic", "ABPs", "chartevents", "Routine Vital Signs", "mmHg", "Numeric"),
    220051: ("Arterial Blood Pressure diastolic", "ABPd", "chartevents", "Routine Vital Signs", "mmHg", "Numeric"),
    220052: ("Arterial Blood Pressure mean", "ABPm", "chartevents", "Routine Vital Signs", "mmHg", "Numeric"),
    220179: ("Non Invasive Blood Pressure systolic", "NBPs", "chartevents", "Routine Vital Signs", "mmHg", "Numeric"),
    220180: ("Non Invasive Blood Pressure diastolic", "NBPd", "chartevents", "Routine Vital Signs", "mmHg", "Numeric"),
    220181: ("Non Invasive Blood Pressure mean", "NBPm", "chartevents", "Routine Vital Signs", "mmHg", "Numeric"),
    220210: ("Respiratory Rate", "RR", "chartevents", "Respiratory", "insp/min", "Numeric"),
    220277: ("O2 saturation pulseoxymetry", "SpO2", "chartevents", "Respiratory", "%", "Numeric"),
    220621: ("Glucose (serum)", "Glucose (serum)", "chartevents", "Labs", None, "Numeric"),
    220739: ("GCS - Eye Opening", "Eye Opening", "chartevents", "Neurological", None, "Text"),
    223761: ("Temperature Fahrenheit", "Temperature F", "chartevents", "Routine Vital Signs", "°F", "Numeric"),
    223762: ("Temperature Celsius", "Temperature C", "chartevents", "Routine Vital Signs", "°C", "Numeric"),
    223835: ("Inspired O2 Fraction", "FiO2", "chartevents", "Respiratory", None, "Numeric"),
    223849: ("Ventilator Mode", "Ventilator Mode", "chartevents", "Respiratory", None, "Text"),
    223900: ("GCS - Verbal Response", "Verbal Response", "chartevents", "Neurological", None, "Text"),
    223901: ("GCS - Motor Response", "Motor Response", "chartevents", "Neurological", None, "Text"),
    224639: ("Daily Weight", "Daily Weight", "chartevents", "General", "kg", "Numeric"),
    226512: ("Admission Weight (Kg)", "Admission Weight (Kg)", "chartevents", "General", "kg", "Numeric"),
    226730: ("Height (cm)", "Height (cm)", "chartevents", "General", "cm", "Numeric"),
    226732: ("O2 Delivery Device(s)", "O2 Delivery Device(s)", "chartevents", "Respiratory", None, "Text"),
    221289: ("Epinephrine", "Epinephrine", "inputevents", "Medications", "mg", "Solution"),
    221653: ("Dobutamine", "Dobutamine", "inputevents", "Medications", "mg", "Solution"),
    221662: ("Dopamine", "Dopamine", "inputevents", "Medications", "mg", "Solution"),
    221749: ("Phenylephrine", "Phenylephrine", "inputevents", "Medications", "mg", "Solution"),
    221906: ("Norepinephrine", "Norepinephrine", "inputevents", "Medications", "mg", "Solution"),
    222315: ("Vasopressin", "Vasopressin", "inputevents", "Medications", "units", "Solution"),
    225158: ("NaCl 0.9%", "NaCl 0.9%", "inputevents", "Fluids/Intake", "mL", "Solution"),
    226559: ("Foley", "Foley", "outputevents", "Output", "mL", "Numeric"),
    226560: ("Void", "Void", "outputevents", "Output", "mL", "Numeric"),
    227488: ("GU Irrigant Volume In", "GU Irrigant Volume In", "outputevents", "Output", "mL", "Numeric"),
    225752: ("Arterial Line", "Arterial Line", "procedureevents", "Access Lines - Invasive", None, "Process"),
    225792: ("Invasive Ventilation", "Invasive Ventilation", "procedureevents", "2-Ventilation", None, "Process"),
}
CHART_UNITS: dict[int, str | None] = {
    itemid: unit for itemid, (_, _, table, _, unit, _) in ITEMS.items() if table == "chartevents"
}

# itemid: label, category; the fluid is always blood
LAB_ITEMS: dict[int, tuple[str, str]] = {
    50813: ("Lactate", "Blood Gas"),
    50816: ("Oxygen", "Blood Gas"),
    50818: ("pCO2", "Blood Gas"),
    50820: ("pH", "Blood Gas"),
    50821: ("pO2", "Blood Gas"),
    50862: ("Albumin", "Chemistry"),
    50868: ("Anion Gap", "Chemistry"),
    50882: ("Bicarbonate", "Chemistry"),
    50885: ("Bilirubin, Total", "Chemistry"),
    50889: ("C-Reactive Protein", "Chemistry"),
    50902: ("Chloride", "Chemistry"),
    50912: ("Creatinine", "Chemistry"),
    50931: ("Glucose", "Chemistry"),
    50971: ("Potassium", "Chemistry"),
    50983: ("Sodium", "Chemistry"),
    51006: ("Urea Nitrogen", "Chemistry"),
    51221: ("Hematocrit", "Hematology"),
    51222: ("Hemoglobin", "Hematology"),
    51237: ("INR(PT)", "Hematology"),
    51265: ("Platelet Count", "Hematology"),
    51301: ("White Blood Cells", "Hematology"),
    52033: ("Specimen Type", "Blood Gas"),
}


def d_items() -> dict[str, Column]:
    """Return the columns of ``icu/d_items``."""
    names = ("label", "abbreviation", "linksto", "category", "unitname", "param_type")
    every = np.arange(len(ITEMS))
    texts = {name: labels([row[i] for row in ITEMS.values()], every) for i, name in enumerate(names)}
    return {"itemid": np.array(list(ITEMS)), **texts}


def d_labitems() -> dict[str, Column]:
    """Return the columns of ``hosp/d_labitems``."""
    every = np.arange(len(LAB_ITEMS))
    return {
        "itemid": np.array(list(LAB_ITEMS)),
        "label": labels([label for label, _ in LAB_ITEMS.values()], every),
        "fluid": labels(["Blood"], every * 0),
        "category": labels([category for _, category in LAB_ITEMS.values()], every),
    }
