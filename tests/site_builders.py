"""MIMIC-style folders, prepared stores and a tiny encoder for the tests of the site pipeline and the partition."""

import gzip
import io
import string
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from client.prepare import prepare_mimic
from client.store import arrays_of, write_store
from shared_model.batch import PatientData, open_store
from shared_model.schema import TABLES
from shared_model.study import EARLY, Cohort
from simulations.synthetic import write_hospitals

Tables = dict[str, pd.DataFrame]
FOLDER = {table.name: table.folder for table in TABLES}

# One patient in every table, with what real extracts do to CSV: quotes, commas and line ends within a field.
TINY = {
    "patients": "subject_id,gender,anchor_age,anchor_year,dod\n1,F,60,2150,\n2,M,71,2150,2150-04-01\n",
    "admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,hospital_expire_flag\n"
    "1,1000,2150-03-09 19:00:00,2150-03-20 12:00:00,,EW EMER.,0\n",
    "diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version\n1,1000,1,A419,10\n",
    "services": "subject_id,hadm_id,transfertime,prev_service,curr_service\n1,1000,2150-03-09 19:00:00,,MED\n",
    "icustays": "subject_id,hadm_id,stay_id,first_careunit,intime,outtime\n"
    "1,1000,100,Medical Intensive Care Unit (MICU),2150-03-10 00:00:00,2150-03-13 00:00:00\n",
    "chartevents": "subject_id,stay_id,charttime,storetime,itemid,value,valuenum,valueuom\n"
    "1,100,2150-03-10 01:00:00,2150-03-10 01:05:00,220045,88,88,bpm\n"
    "1,100,2150-03-10 02:00:00,,220045,90.5,90.5,bpm\n"
    "1,100,2150-03-10 02:00:00,2150-03-10 02:02:00,999999,x,,\n",
    "labevents": "subject_id,hadm_id,specimen_id,itemid,charttime,storetime,value,valuenum,valueuom\n"
    "1,,7,50912,2150-03-10 03:00:00,2150-03-10 04:00:00,1.4,1.4,mg/dL\n",
    "microbiologyevents": "subject_id,hadm_id,micro_specimen_id,chartdate,charttime,storetime,spec_type_desc,"
    "org_itemid,org_name\n"
    "1,1000,9,2150-03-10 00:00:00,2150-03-10 05:00:00,2150-03-12 05:00:00,BLOOD CULTURE,,\n",
    "prescriptions": "subject_id,hadm_id,starttime,stoptime,drug_type,drug,route\n"
    '1,1000,2150-03-10 06:00:00,2150-03-11 06:00:00,MAIN,"Sulfa, ""DS""\nforte",IV\n'
    "1,1000,2150-03-10 07:00:00,2150-03-11 07:00:00,MAIN,Vancomycin,IV\n",
    "inputevents": "subject_id,stay_id,starttime,endtime,storetime,itemid,rate,rateuom,patientweight\n"
    "1,100,2150-03-10 06:00:00,2150-03-10 07:00:00,2150-03-10 06:02:00,221906,0.1,mcg/kg/min,80\n",
    "outputevents": "subject_id,stay_id,charttime,storetime,itemid,value\n"
    "1,100,2150-03-10 06:00:00,2150-03-10 06:02:00,226559,120\n",
    "radiology": "note_id,subject_id,hadm_id,charttime,storetime,text\n"
    '1-RR-1,1,1000,2150-03-10 08:00:00,2150-03-10 09:00:00,"CHEST, portable\n\n""clear"""\n',
    "discharge": "note_id,subject_id,hadm_id,charttime,storetime,text\n",
}


def table_file(folder: Path, name: str, suffix: str = ".csv.gz") -> Path:
    return folder / FOLDER[name] / f"{name}{suffix}"


def write_csv(folder: Path, name: str, text: str | bytes, *, suffix: str = ".csv.gz") -> Path:
    """Put one table's text in its place, gzipped where the suffix says so, without touching a byte of it."""
    file = table_file(folder, name, suffix)
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode() if isinstance(text, str) else text
    file.write_bytes(gzip.compress(raw, 1) if suffix == ".csv.gz" else raw)
    return file


def tiny_folder(folder: Path, **changed: str | bytes) -> Path:
    """The tiny extract; ``changed`` replaces the text of a table."""
    for name, text in (TINY | changed).items():
        write_csv(folder, name, text)
    return folder


def synthetic(folder: Path, *, patients: int, seed: int = 3) -> Path:
    write_hospitals(folder, patients=patients, seed=seed, workers=1)
    return folder


def read_tables(folder: Path) -> Tables:
    """Every table as text, so that what is not edited is written back as it was; an empty field is ''."""
    read = {"dtype": str, "keep_default_na": False}
    return {name: pd.read_csv(table_file(folder, name), **read) for name in FOLDER}


def write_tables(tables: Tables, folder: Path) -> Path:
    for name, rows in tables.items():
        write_csv(folder, name, rows.to_csv(index=False))
    return folder


def as_parquet(source: Path, folder: Path, *, typed: bool) -> Path:
    """The same extract as Parquet: typed by pandas' guess, as people export it, or all text."""
    for name in FOLDER:
        text = gzip.decompress(table_file(source, name).read_bytes()).decode()
        rows = pd.read_csv(io.StringIO(text), dtype=None if typed else str, keep_default_na=False, na_values=[""])
        for column in [c for c in rows if typed and c.endswith("time")]:
            rows[column] = pd.to_datetime(rows[column])
        file = table_file(folder, name, ".parquet")
        file.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(file, index=False)
    return folder


def prepared(source: Path, store: Path, *, cohort: Cohort = "all_icu", encoder: str = "none") -> PatientData:
    prepare_mimic(source, store, cohort=cohort, encoder=encoder, memory_limit="1GB")
    return open_store(store, verify=True)


def tiny_encoder(folder: Path, **other_sizes: int) -> str:
    """A real transformers encoder that is small and random: other words give another vector, in milliseconds."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    marks = string.ascii_lowercase + string.digits + string.punctuation
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *marks, *(f"##{mark}" for mark in marks)]
    tokenizer = Tokenizer(WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    sizes |= {"vocab_size": len(words)} | other_sizes
    generator_state = torch.get_rng_state()
    torch.manual_seed(0)
    BertModel(BertConfig(initializer_range=0.5, **sizes)).save_pretrained(folder)
    torch.set_rng_state(generator_state)
    return str(folder)


def chunks_of(data: PatientData, row: int) -> np.ndarray:
    """The note embeddings of one stay, in their order."""
    start, count = int(data.chunk_start_N[row]), int(data.chunk_count_N[row])
    return data.embedding_ME[start : start + count].float().numpy()


def made_store(folder: Path, *, patient: list[int], unit: list[str], death: list[bool]) -> PatientData:
    """A store without an extract: row i has stay id i, features full of i, and i % 4 chunks that say [i, k]."""
    rows, units = np.arange(len(patient)), sorted(set(unit))
    count = rows % 4
    chunk = np.array([(i, k) for i in rows for k in range(count[i])], dtype=np.float16).reshape(-1, 2)
    data = PatientData(
        static_NF=torch.from_numpy(np.repeat(rows[:, None], len(EARLY.static), 1)).float(),
        series_NTC=torch.from_numpy(rows[:, None, None] + np.zeros((1, EARLY.windows, len(EARLY.series)))).float(),
        label_N=torch.tensor(death),
        patient_N=torch.tensor(patient),
        unit_N=torch.tensor([units.index(name) for name in unit]),
        embedding_ME=torch.from_numpy(chunk),
        chunk_start_N=torch.from_numpy(np.cumsum(count) - count),
        chunk_count_N=torch.from_numpy(count),
        units=tuple(units),
    )
    stays = pd.DataFrame({"subject_id": patient, "stay_id": rows, "unit": unit, "label": death})
    facts = {"source": "made", "cohort": "all_icu", "stays_of_a_patient": "first"}
    facts |= {"flag": "", "row_checks": [], "event_checks": []}
    facts |= {"rules_version": "test", "encoder": {"name": "none", "digest": "0"}, "flow": []}
    folder.mkdir(parents=True)
    write_store(folder, arrays_of(data), data.units, stays, EARLY, facts)
    return open_store(folder, verify=True)
