"""The words of the invented German hospital: local codes with their units, and what its people write."""

# MIMIC item id: local code, name, unit as it is written (None: no unit).
CHART: dict[int, tuple[str, str, str | None]] = {
    220045: ("HF", "Herzfrequenz", "/min"),
    220210: ("AF", "Atemfrequenz", "Atemzüge/min"),
    224690: ("AF_GES", "Atemfrequenz gesamt (Gerät)", "1/min"),
    220179: ("NIBP_SYS", "Blutdruck nichtinvasiv systolisch", "mm Hg"),
    220180: ("NIBP_DIA", "Blutdruck nichtinvasiv diastolisch", "mm Hg"),
    220181: ("NIBP_MIT", "Blutdruck nichtinvasiv Mittel", "mm Hg"),
    220050: ("ART_SYS", "Blutdruck arteriell systolisch", "mmHg"),
    220051: ("ART_DIA", "Blutdruck arteriell diastolisch", "mmHg"),
    220052: ("ART_MIT", "Blutdruck arteriell Mittel", "mmHg"),
    225312: ("ART_MIT2", "Blutdruck arteriell Mittel, zweite Kanüle", "mmHg"),
    223762: ("TEMP", "Körpertemperatur", "°C"),
    223761: ("TEMP_BL", "Körpertemperatur Blase", "Grad C"),
    220277: ("SPO2", "Sauerstoffsättigung", "%"),
    223835: ("FIO2", "inspiratorische Sauerstofffraktion", "Fraktion"),
    220739: ("GCS_A", "GCS Augen", None),
    223900: ("GCS_V", "GCS verbale Antwort", None),
    223901: ("GCS_M", "GCS motorische Antwort", None),
    220621: ("BZ", "Blutzucker am Bett", "mmol/l"),
    227444: ("CRP_B", "CRP am Bett", "mg/l"),
    220612: ("CRP_B2", "CRP am Bett, zweites Gerät", "mg/l"),
    226512: ("KG", "Körpergewicht bei Aufnahme", "kg"),
    224639: ("KG_TAG", "Körpergewicht täglich", "kg"),
    226531: ("KG_ALT", "Körpergewicht, anamnestisch", "kg"),
    226730: ("GROESSE", "Körpergröße", "m"),
    226707: ("GROESSE2", "Körpergröße, anamnestisch", "m"),
    226732: ("O2_GERAET", "Sauerstoffgerät", None),
    223834: ("O2_FLUSS", "Sauerstofffluss", "l/min"),
    227582: ("O2_FLUSS2", "Sauerstofffluss BiPAP", "l/min"),
    227287: ("O2_FLUSS3", "Sauerstofffluss, zweites Gerät", "l/min"),
    223849: ("BEATM", "Beatmungsmodus", None),
    229314: ("BEATM_H", "Beatmungsmodus Hamilton", None),
}
LAB: dict[int, tuple[str, str, str | None]] = {
    50912: ("KREA", "Kreatinin", "µmol/l"),
    50885: ("BILI_G", "Bilirubin gesamt", "µmol/l"),
    50931: ("GLUC", "Glukose", "mmol/l"),
    51006: ("HST", "Harnstoff", "mmol/l"),
    51265: ("THRO", "Thrombozyten", "Gpt/l"),
    51301: ("LEUK", "Leukozyten", "Gpt/l"),
    51300: ("LEUK2", "Leukozyten, Handzählung", "/nl"),
    51222: ("HB", "Hämoglobin", "mmol/l"),
    51221: ("HKT", "Hämatokrit", "l/l"),
    50983: ("NA", "Natrium", "mmol/l"),
    50971: ("K", "Kalium", "mmol/l"),
    50902: ("CL", "Chlorid", "mmol/l"),
    50882: ("HCO3", "Bikarbonat", "mmol/l"),
    50868: ("ANLUE", "Anionenlücke", "mmol/l"),
    51237: ("INR", "INR", None),
    50889: ("CRP", "C-reaktives Protein", "mg/dl"),
    50862: ("ALB", "Albumin", "g/l"),
    50863: ("AP", "Alkalische Phosphatase", "U/l"),
    50861: ("GPT", "Alanin-Aminotransferase", "U/l"),
    50878: ("GOT", "Aspartat-Aminotransferase", "U/l"),
    50960: ("MG", "Magnesium", "mmol/l"),
}
# The blood gas sheet is wide: MIMIC item id: column, unit.
GASES: dict[int, tuple[str, str]] = {
    50821: ("PaO2", "kPa"),
    50818: ("PaCO2", "kPa"),
    50820: ("pH", ""),
    50813: ("Laktat", "mmol/l"),
    50816: ("FiO2", "fraction"),
}
SPECIMEN_TYPE = 52033
# MIMIC item id: drug, unit, factor from MIMIC's mcg/kg/min or units/hour; the first is a rate without weight.
INFUSIONS: dict[int, tuple[str, str, float]] = {
    221906: ("Noradrenalin", "µg/min", 1.0),
    221289: ("Adrenalin", "ng/kg/min", 1000.0),
    221749: ("Phenylephrin", "µg/kg/min", 1.0),
    221662: ("Dopamin", "µg/kg/h", 60.0),
    221653: ("Dobutamin", "mg/kg/h", 0.06),
    222315: ("Vasopressin", "IE/h", 1.0),
}
OUTPUTS: dict[int, tuple[str, str]] = {
    226557: ("URIN_1", "ml"),
    226558: ("URIN_2", "ml"),
    226559: ("URIN_DK", "ml"),
    226560: ("URIN_SP", "ml"),
    226561: ("URIN_KA", "l"),
    226563: ("URIN_6", "ml"),
    226564: ("URIN_7", "ml"),
    226565: ("URIN_8", "ml"),
    226567: ("URIN_9", "ml"),
    226584: ("URIN_10", "ml"),
    227488: ("SPUEL_EIN", "ml"),
    227489: ("SPUEL_AUS", "ml"),
}
GCS_WORDS: dict[int, dict[int, str]] = {
    220739: {4: "spontan", 3: "auf Ansprache", 2: "auf Schmerz", 1: "keine"},
    223900: {5: "orientiert", 4: "verwirrt", 3: "einzelne Wörter", 2: "Laute", 1: "keine Antwort"},
    223901: {6: "befolgt Aufforderung", 5: "gezielt", 4: "ungezielt", 3: "beugt", 2: "streckt", 1: "keine"},
}
INTUBATED = "intubiert"
ADMISSION_TYPES = {
    "EW EMER.": "Notfall über Ambulanz",
    "DIRECT EMER.": "Notfall direkt",
    "URGENT": "dringlich",
    "ELECTIVE": "elektiv",
    "SURGICAL SAME DAY ADMISSION": "OP am Aufnahmetag",
    "OBSERVATION ADMIT": "Beobachtung, stationär",
    "EU OBSERVATION": "Beobachtung, Aufnahmestation",
    "DIRECT OBSERVATION": "Beobachtung, direkt",
    "AMBULATORY OBSERVATION": "Beobachtung, ambulant",
}
