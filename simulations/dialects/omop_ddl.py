"""Tables of the OMOP Common Data Model 5.4 that the writer fills, with the model's own columns and PostgreSQL types.

Source: OHDSI, OMOP CDM 5.4 specification (ohdsi.github.io/CommonDataModel). Constraints and the tables and columns that
stay empty are left out; ``drug_source_value`` holds 255 characters, because drug names are longer than the model's 50.
"""


def _event(name: str) -> str:
    return f"{name}_date date, {name}_datetime timestamp"


TABLES: dict[str, str] = {
    "person": "person_id integer, gender_concept_id integer, year_of_birth integer, month_of_birth integer,"
    " day_of_birth integer, birth_datetime timestamp, race_concept_id integer, ethnicity_concept_id integer,"
    " person_source_value varchar(50), gender_source_value varchar(50)",
    "visit_occurrence": "visit_occurrence_id integer, person_id integer, visit_concept_id integer,"
    f" {_event('visit_start')}, {_event('visit_end')}, visit_type_concept_id integer, visit_source_value varchar(50),"
    " discharged_to_source_value varchar(50)",
    "visit_detail": f"visit_detail_id integer, person_id integer, visit_detail_concept_id integer,"
    f" {_event('visit_detail_start')}, {_event('visit_detail_end')}, visit_detail_type_concept_id integer,"
    " care_site_id integer, visit_detail_source_value varchar(50), visit_occurrence_id integer",
    "care_site": "care_site_id integer, care_site_name varchar(255), place_of_service_concept_id integer",
    "death": f"person_id integer, {_event('death')}, death_type_concept_id integer",
    "condition_occurrence": f"condition_occurrence_id integer, person_id integer, condition_concept_id integer,"
    f" {_event('condition_start')}, condition_type_concept_id integer, visit_occurrence_id integer,"
    " condition_source_value varchar(50), condition_source_concept_id integer",
    "drug_exposure": f"drug_exposure_id integer, person_id integer, drug_concept_id integer,"
    f" {_event('drug_exposure_start')}, {_event('drug_exposure_end')}, drug_type_concept_id integer, quantity numeric,"
    " sig text, visit_occurrence_id integer, visit_detail_id integer, drug_source_value varchar(255),"
    " route_source_value varchar(50), dose_unit_source_value varchar(50)",
    "measurement": "measurement_id integer, person_id integer, measurement_concept_id integer,"
    f" {_event('measurement')}, measurement_type_concept_id integer, value_as_number numeric,"
    " visit_occurrence_id integer, visit_detail_id integer,"
    " measurement_source_value varchar(50), unit_source_value varchar(50), value_source_value varchar(50),"
    " measurement_event_id integer, meas_event_field_concept_id integer",
    "observation": "observation_id integer, person_id integer, observation_concept_id integer,"
    f" {_event('observation')}, observation_type_concept_id integer, value_as_string varchar(60),"
    " visit_occurrence_id integer,"
    " visit_detail_id integer, observation_source_value varchar(50)",
    "specimen": f"specimen_id integer, person_id integer, specimen_concept_id integer, {_event('specimen')},"
    " specimen_type_concept_id integer, specimen_source_id varchar(50), specimen_source_value varchar(50)",
    "note": f"note_id integer, person_id integer, {_event('note')}, note_type_concept_id integer,"
    " note_class_concept_id integer, note_title varchar(250), note_text text,"
    " visit_occurrence_id integer, note_source_value varchar(50)",
    "concept": "concept_id integer, concept_name varchar(255), domain_id varchar(20), vocabulary_id varchar(20),"
    " concept_class_id varchar(20), standard_concept varchar(1), concept_code varchar(50)",
}
DDL = "\n".join(f"CREATE TABLE {name} ({columns});" for name, columns in TABLES.items())


def columns_of(table: str) -> list[str]:
    """Names of a table's columns, in order."""
    return [column.split()[0] for column in TABLES[table].split(", ")]
