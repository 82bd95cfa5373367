"""What columns of an extract are often called, in English and German, for `consilium-site init`."""

# What columns are often called: role, regular expression. The first that matches a role is taken.
ROLES = (
    ("stay", r"(icu|unit)?_?stay_?(id|nr|uuid)?|patientunitstayid|icustay_id|aufenthalt(snr)?|visit_detail_id"),
    (
        "admission",
        r"hadm_?id|admission_?(id|nr|uuid)|encounter_?(id|uuid)?|visit(_occurrence)?_?(id)?|case_?(id|nr)?|fall_?(nr|id)?",
    ),
    ("patient", r"(subject|patient|person|patienten|pat)_?(id|nr|no|number|uuid)?|recordid|uniquepid|mrn"),
    ("stored", r"store_?time|.*entered.*|.*(verified|released|resulted|registered|updated)_?(at|on|time)?|befund_?um"),
    (
        "time",
        r".*(chart|observation|measured|result|sample|collect|taken).*(time|date|offset|at)|.*time(stamp)?|.*offset"
        r"|zeit(punkt)?|date(time)?",
    ),
    ("unit", r".*(unit|uom|einheit)(?!.*id$).*"),
    (
        "code",
        r"itemid|(item|test|lab|variable|parameter|code|loinc)(?!.*id$).*|.*(code|name|label|item|parameter|analyt)",
    ),
    ("value", r".*(value|result|wert|numeric)(?!.*id$).*"),
)
FIELDS = {
    "anchor_age": r"age|alter|age_years|anchor_age",
    "anchor_year": r"(birth|geburts).*|year_of_birth|anchor_year",
    "gender": r"gender|sex|geschlecht",
    "intime": r"(icu|unit)?_?(in|admit|admission|entry|start)_?(time|date|at|dt)?|beginn",
    "outtime": r"(icu|unit)?_?(out|discharge|exit|end)_?(time|date|at|dt|offset)?|ende",
    "admittime": r"(hosp.*)?(admit|admission|admitted)_?(time|date|at|on|dt|datetime)?|aufnahme(zeit|datum|_?um)?",
    "hospital_expire_flag": r".*(expire|mortal|died|outcome|dischargestatus|entlassart)(?!.*(at|time|date)$).*|.*death",
}
# What the files of the tables that every site has are often called.
TABLES_CALLED = {
    "patients": r"patient|person|subject",
    "admissions": r"admission|encounter|visit|aufnahme|f(ae|ä)lle|case",
    "icustays": r"icu|stay|intensiv|aufenthalt|unit",
}
